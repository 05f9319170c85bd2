import { describe, expect, it } from 'vitest'
import { formatFields, formatTable, formatTime, printable } from '../../../src/cli/terminal.ts'

describe('formatTable', () => {
  it('aligns columns, numbers to the right, without spaces at the end of lines', () => {
    const table = formatTable(
      ['NAME', 'COUNT', 'STATE'],
      [
        ['a', 7, 'ready'],
        ['longer', 1234, ''],
      ],
    )
    expect(table).toBe('NAME    COUNT  STATE\na           7  ready\nlonger   1234\n')
  })

  it('prints the heads of an empty list', () => {
    expect(formatTable(['KEY ID', 'STATE'], [])).toBe('KEY ID  STATE\n')
  })

  it('shows escape sequences that a caller put into a description instead of obeying them', () => {
    const table = formatTable(['DESCRIPTION'], [['\u001b[2Jcleared\nnew row\u202e\u009b0m']])
    expect(table).toBe('DESCRIPTION\n\\u001b[2Jcleared\\u000anew row\\u202e\\u009b0m\n')
  })
})

describe('formatFields', () => {
  it('puts the values under each other', () => {
    expect(
      formatFields([
        ['a', 'x'],
        ['long', 2],
        ['none', ''],
      ]),
    ).toBe('a     x\nlong  2\nnone\n')
  })
})

describe('printable', () => {
  it('leaves letters of all languages alone', () => {
    expect(printable('Schlüssel 鍵 مفتاح 🔑')).toBe('Schlüssel 鍵 مفتاح 🔑')
  })
})

describe('formatTime', () => {
  it('is ISO 8601 in UTC, and a dash for never', () => {
    expect([formatTime(1_700_000_000_123), formatTime(null), formatTime(undefined)]).toEqual([
      '2023-11-14T22:13:20Z',
      '-',
      '-',
    ])
  })
})
