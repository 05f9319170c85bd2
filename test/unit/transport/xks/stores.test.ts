/** Stores in memory, and what another gateway makes of them in the catalog. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { SigV4Verifier } from '../../../../src/authenticate/authenticate.ts'
import type { Catalog } from '../../../../src/catalog/catalog.ts'
import { type StoreDocument, storeCollection } from '../../../../src/transport/xks/store-documents.ts'
import { openStores } from '../../../../src/transport/xks/stores.ts'

const document: StoreDocument = {
  prefix: '/shop',
  account: '111122223333',
  region: 'us-east-1',
  aadMode: 'spec',
  requestsPerSecond: null,
  principals: [],
  clientNames: [],
  isBlocked: false,
  createdAt: 1,
  credentials: [],
}

async function open() {
  const bodies = new Map([['shop', document]])
  let listener: Parameters<Catalog['onChange']>[0] = () => {}
  let failure: Error | undefined
  let held: Promise<void> | undefined
  const failures: unknown[] = []
  const read = async <T>(take: () => T): Promise<T> => {
    await held
    if (failure !== undefined) throw failure
    return take()
  }
  const toBody = (found: StoreDocument | undefined) => (found === undefined ? undefined : JSON.stringify(found))
  const stores = await openStores({
    catalog: {
      onChange: (next) => {
        listener = next
      },
      findDocument: (_collection, name) => read(() => toBody(bodies.get(name))),
      listDocuments: (collection) =>
        read(() =>
          collection === storeCollection
            ? [...bodies].map(([name, body]) => ({ name, body: JSON.stringify(body) }))
            : [],
        ),
    },
    unseal: async () => Buffer.alloc(0),
    partition: 'aws',
    createVerifier: () => ({ forget() {}, [Symbol.dispose]() {} }) as unknown as SigV4Verifier,
    failed: (cause) => failures.push(cause),
  })
  return {
    stores,
    failures,
    block: () => bodies.set('shop', { ...document, isBlocked: true }),
    tell: (table: string, name: string, own = false) => listener({ table, name, revision: 2, own }),
    fail: (error: Error | undefined) => {
      failure = error
    },
    hold: (until: Promise<void> | undefined) => {
      held = until
    },
  }
}

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

describe('a store that another gateway blocked', () => {
  it.each([
    ['document', 'xks-store/shop'],
    ['*', '*'],
  ])('is unread until that has been read: %s', async (table, name) => {
    const { stores, block, tell, hold } = await open()
    using _ = stores
    expect(stores.find('/shop')).toMatchObject({ isBlocked: false })
    const { promise, resolve } = Promise.withResolvers<void>()
    hold(promise)
    block()
    tell(table, name)
    expect(stores.isUnread).toBe(true)
    const read = stores.whenRead()
    resolve()
    await read
    expect(stores.find('/shop')).toMatchObject({ isBlocked: true })
    expect(stores.isUnread).toBe(false)
  })

  it('serves nobody while nothing can be read, and is read as soon as that is possible', async () => {
    const { stores, failures, block, tell, fail } = await open()
    using _ = stores
    fail(new Error('the server is starting'))
    block()
    tell('*', '*')
    await vi.advanceTimersByTimeAsync(1000)
    expect(failures.length).toBeGreaterThan(1)
    await expect(stores.whenRead()).rejects.toMatchObject({ code: 'CatalogUnavailable' })
    fail(undefined)
    await vi.advanceTimersByTimeAsync(1000)
    expect(stores.isUnread).toBe(false)
    expect(stores.find('/shop')).toMatchObject({ isBlocked: true })
  })
})

describe('a store that this gateway changes', () => {
  it('is not waited for: its operator is', async () => {
    const { stores, tell } = await open()
    using _ = stores
    tell('document', 'xks-store/shop', true)
    expect(stores.isUnread).toBe(false)
  })
})
