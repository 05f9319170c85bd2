import { randomUUID } from 'node:crypto'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import type { KeyUsageRecord } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import { openLastUsage } from '../../../src/keys/last-usage.ts'
import { temporaryFolder } from '../../support/catalog.ts'

const name = { account: '111122223333', region: 'us-east-1', keyId: randomUUID() }

function usage(at: number, operation = 'Encrypt'): KeyUsageRecord {
  return { ...name, operation, at, eventId: `event-${at}`, requestId: `request-${at}` }
}

const failed = (cause: unknown) => {
  throw cause
}

describe('the last use of a key', () => {
  it('is known at once and written when the gateway closes', async () => {
    using folder = temporaryFolder()
    await using catalog = await openCatalog({ kind: 'sqlite', file: path.join(folder.path, 'catalog.sqlite') })
    {
      await using last = openLastUsage({ catalog, failed })
      expect(await last.find(name)).toBeUndefined()
      last.note(usage(1))
      last.note(usage(2, 'Decrypt'))
      expect(await last.find(name)).toEqual(usage(2, 'Decrypt'))
      expect(await catalog.findUsage(name)).toBeUndefined()
    }
    expect(await catalog.findUsage(name)).toEqual(usage(2, 'Decrypt'))
  })

  it('is not replaced by an older one of another gateway', async () => {
    using folder = temporaryFolder()
    await using catalog = await openCatalog({ kind: 'sqlite', file: path.join(folder.path, 'catalog.sqlite') })
    await catalog.putUsages([usage(10)])
    await using last = openLastUsage({ catalog, failed })
    last.note(usage(9, 'Sign'))
    await last.flush()
    expect(await catalog.findUsage(name)).toEqual(usage(10))
    last.note(usage(11, 'Sign'))
    await last.flush()
    expect(await catalog.findUsage(name)).toEqual(usage(11, 'Sign'))
  })

  it('waits for the next write when one fails, unless a newer one came', async () => {
    const written: KeyUsageRecord[] = []
    const causes: unknown[] = []
    let isBroken = true
    const catalog = {
      async putUsages(usages: readonly KeyUsageRecord[]) {
        if (isBroken) throw new Error('the disk is full')
        written.push(...usages)
      },
      findUsage: async () => undefined,
    }
    await using last = openLastUsage({ catalog, failed: (cause) => causes.push(cause) })
    last.note(usage(1))
    await last.flush()
    expect(causes).toHaveLength(1)
    expect(await last.find(name)).toEqual(usage(1))
    isBroken = false
    await last.flush()
    expect(written).toEqual([usage(1)])
  })
})
