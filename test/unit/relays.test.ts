/** Which relays are approved: memory follows the catalog, and comes back when the catalog does. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Catalog } from '../../src/catalog/catalog.ts'
import { createRelayAdministration, type RelayAuthorityKey } from '../../src/relays.ts'

const name = { account: 'system', region: 'us-east-1', keyId: 'relays' }
const relay = { name: 'web1', digest: 'd'.repeat(64), notAfter: 2, approvedAt: 1 }

function open() {
  let failure: Error | undefined
  let held: Promise<void> | undefined
  let listener: Parameters<Catalog['onChange']>[0] = () => {}
  const failures: unknown[] = []
  const relays = createRelayAdministration({
    catalog: {
      onChange: (next: typeof listener) => {
        listener = next
      },
      async findKey() {
        await held
        if (failure !== undefined) throw failure
        return { key: { extra: { relays: [relay] } } }
      },
    } as unknown as Catalog,
    authority: { name } as RelayAuthorityKey,
    now: () => 1,
    failed: (cause) => failures.push(cause),
  })
  return {
    relays,
    failures,
    change: () => listener({ table: '*', name: '*', revision: 0, own: false }),
    fail: (error: Error | undefined) => {
      failure = error
    },
    hold: (until: Promise<void>) => {
      held = until
    },
  }
}

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

describe('approved relays', () => {
  it('are read again until that succeeds, and it is not known meanwhile who is one', async () => {
    const { relays, failures, change, fail } = open()
    using _ = relays
    await relays.load()
    fail(new Error('the server is starting'))
    change()
    await vi.advanceTimersByTimeAsync(0)
    expect(failures).toHaveLength(1)
    expect(relays.find(relay.digest)).toBeUndefined()
    await expect(relays.whenRead()).rejects.toMatchObject({ code: 'CatalogUnavailable' })
    fail(undefined)
    await vi.advanceTimersByTimeAsync(1000)
    expect(relays.find(relay.digest)).toMatchObject({ name: 'web1' })
    expect(relays.isUnread).toBe(false)
  })

  it('are waited for while they are read', async () => {
    const { relays, change, hold } = open()
    using _ = relays
    await relays.load()
    const { promise, resolve } = Promise.withResolvers<void>()
    hold(promise)
    change()
    expect(relays.find(relay.digest)).toBeUndefined()
    expect(relays.isUnread).toBe(true)
    const read = relays.whenRead()
    resolve()
    await read
    expect(relays.find(relay.digest)).toMatchObject({ name: 'web1' })
  })

  it('are read no more when nobody needs them', async () => {
    const { relays, failures, change, fail } = open()
    fail(new Error('the catalog is closed'))
    change()
    await vi.advanceTimersByTimeAsync(0)
    relays[Symbol.dispose]()
    await vi.advanceTimersByTimeAsync(10_000)
    expect(failures).toHaveLength(1)
  })
})
