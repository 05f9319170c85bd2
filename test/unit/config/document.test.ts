import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { configurationDocument, updateDocument } from '../../support/configuration-table.ts'

describe('docs/configuration.md', () => {
  it('lists every key as the schema has it (else run: node test/support/configuration-table.ts)', () => {
    const text = readFileSync(configurationDocument, 'utf8')
    expect(text).toBe(updateDocument(text))
  })

  it('shows a file that is valid', async () => {
    const { parseConfig } = await import('../../../src/config/load.ts')
    const [, example] = /```json\n([\s\S]*?)```/.exec(readFileSync(configurationDocument, 'utf8')) ?? []
    expect(parseConfig(String(example), '/etc/hsmgate/config.json', {})).toMatchObject({ defaultGroup: 'default' })
  })
})
