import { mkdtempSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { findPinFile, openPinLatch } from '../../../src/hsm/pin-latch.ts'

let folder: string
let pinFile: string
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-latch-'))
  pinFile = path.join(folder, 'pin')
  writeFileSync(pinFile, '1234')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const owner = { serial: 'abc', user: 'crypto-user' }

describe('PIN latch', () => {
  it('holds across a restart, for this token, user and file only', () => {
    const pin = findPinFile(pinFile)!
    openPinLatch(folder).refuse(owner, [pin], 0xa0)
    const latch = openPinLatch(folder)
    expect(latch.isRefused(owner, findPinFile(pinFile)!)).toBe(true)
    expect(latch.refusedOf(owner)).toEqual(pin)
    expect(latch.isRefused({ ...owner, user: 'other' }, pin)).toBe(false)
    expect(latch.isRefused({ ...owner, serial: 'abd' }, pin)).toBe(false)
    expect(latch.isRefused({ label: 'abc', user: 'crypto-user' }, pin)).toBe(false)
  })

  it('lets go when the file is replaced, even by one with the same content', () => {
    const latch = openPinLatch(folder)
    latch.refuse(owner, [findPinFile(pinFile)!], 0xa0)
    writeFileSync(`${pinFile}.new`, '1234')
    renameSync(`${pinFile}.new`, pinFile)
    expect(latch.isRefused(owner, findPinFile(pinFile)!)).toBe(false)
  })

  it('lets go when it is cleared, also for the next start', () => {
    const latch = openPinLatch(folder)
    latch.refuse(owner, [findPinFile(pinFile)!], 0xa4)
    latch.clear(owner)
    expect(latch.isRefused(owner, findPinFile(pinFile)!)).toBe(false)
    expect(openPinLatch(folder).isRefused(owner, findPinFile(pinFile)!)).toBe(false)
  })

  it('leaves one file that its owner alone can read', () => {
    openPinLatch(folder).refuse(owner, [findPinFile(pinFile)!], 0xa0)
    expect(readdirSync(folder).sort()).toEqual(['pin', 'pin-refused.json'])
    expect(statSync(path.join(folder, 'pin-refused.json')).mode & 0o777).toBe(0o600)
  })

  it('refuses to open with a damaged record rather than try a PIN again', () => {
    for (const text of ['', '{', '{}', '{"refusals":[{}]}']) {
      writeFileSync(path.join(folder, 'pin-refused.json'), text)
      expect(() => openPinLatch(folder), text).toThrow()
    }
  })
})
