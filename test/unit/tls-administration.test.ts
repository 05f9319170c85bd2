/** Bindings in force: the store follows the catalog, and what was withdrawn never comes back by a read that began before. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createTlsBindingStore, digestToken, tlsPrincipalArn } from '../../src/authenticate/tls-bindings.ts'
import type { Catalog, TlsBindingRecord } from '../../src/catalog/catalog.ts'
import { GatewayError } from '../../src/error.ts'
import type { KeyService } from '../../src/keys/keys.ts'
import { createTlsAdministration } from '../../src/tls-administration.ts'

const account = '000000000000'
const key = { account, region: 'us-east-1', keyId: '11111111-2222-4333-8444-555555555555' }
const recordOf = (name: string, token: Buffer, changes: Partial<TlsBindingRecord> = {}): TlsBindingRecord => ({
  ...key,
  name,
  tokenDigest: digestToken(token),
  spkiDigest: randomBytes(32),
  policies: ['tls13-server'],
  users: [33],
  relays: [],
  ratePerSecond: null,
  concurrency: 4,
  createdAt: 1,
  revision: 1,
  ...changes,
})

/** A catalog of bindings alone, whose reads can be held up. */
function createBindings() {
  const rows = new Map<string, TlsBindingRecord>()
  const listeners: Parameters<Catalog['onChange']>[0][] = []
  const reads: (() => void)[] = []
  let held = false
  let failure: Error | undefined
  const read = async <T>(take: () => T): Promise<T> => {
    const found = take()
    if (failure !== undefined) throw failure
    if (held) await new Promise<void>((resolve) => reads.push(resolve))
    return found
  }
  const catalog = {
    onChange: (listener: (typeof listeners)[number]) => void listeners.push(listener),
    listTlsBindings: () => read(() => [...rows.values()]),
    findTlsBinding: (_account: string, name: string) => read(() => rows.get(name)),
    async deleteTlsBinding(_account: string, name: string) {
      if (failure !== undefined) throw failure
      if (!rows.delete(name)) return false
      tell(name)
      return true
    },
  } as unknown as Catalog
  const tell = (name: string) => {
    for (const listener of listeners) {
      listener({ table: 'tls_binding', name: `${account}/us-east-1/${key.keyId}/${name}`, revision: 2, own: true })
    }
  }
  return {
    catalog,
    rows,
    tell,
    tellAnything: () => {
      for (const listener of listeners) listener({ table: '*', name: '*', revision: 0, own: false })
    },
    hold: () => {
      held = true
    },
    release: () => {
      held = false
      for (const resolve of reads.splice(0)) resolve()
    },
    fail: (error: Error | undefined) => {
      failure = error
    },
  }
}

function open() {
  const bindings = createBindings()
  const store = createTlsBindingStore()
  const failures: unknown[] = []
  const administration = createTlsAdministration({
    catalog: bindings.catalog,
    keys: {} as KeyService,
    store,
    accounts: [account],
    partition: 'aws',
    now: () => 1,
    failed: (cause) => failures.push(cause),
  })
  return { ...bindings, store, failures, administration }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

describe('the store of bindings', () => {
  it('finds by the token alone, and shows what it permits without the token or its digest', () => {
    const { store, administration, rows } = open()
    const token = randomBytes(32)
    rows.set('shop', recordOf('shop', token))
    return administration.load().then((count) => {
      expect(count).toBe(1)
      const found = store.find(token)
      expect(found).toEqual({
        ...key,
        name: 'shop',
        spkiDigest: expect.any(Buffer),
        policies: ['tls13-server'],
        users: [33],
        relays: [],
        concurrency: 4,
        revision: 1,
      })
      expect(Object.isFrozen(found)).toBe(true)
      expect(store.find(randomBytes(32))).toBeUndefined()
      expect(store.find(digestToken(token))).toBeUndefined()
      expect(store.find(Buffer.alloc(0))).toBeUndefined()
    })
  })

  it('knows which keys have a policy', async () => {
    const { store, administration, rows } = open()
    rows.set('narrow', recordOf('narrow', randomBytes(32)))
    await administration.load()
    expect(store.permits(key, 'any')).toBe(false)
    rows.set('wide', recordOf('wide', randomBytes(32), { policies: ['any', 'of a later version'] }))
    await administration.load()
    expect(store.permits(key, 'any')).toBe(true)
    expect(store.permits({ ...key, region: 'eu-west-1' }, 'any')).toBe(false)
    expect(store.permits({ ...key, account: '111122223333' }, 'any')).toBe(false)
  })

  it('names the principal', () => {
    expect(tlsPrincipalArn('aws-cn', { account, name: 'shop' })).toBe(
      'arn:aws-cn:iam::000000000000:user/hsmgate/tls/shop',
    )
  })
})

describe('a binding that is revoked', () => {
  it('is out of force when the command answers, with the same name in another account untouched', async () => {
    const { store, administration, rows } = open()
    const [token, other] = [randomBytes(32), randomBytes(32)]
    rows.set('shop', recordOf('shop', token))
    rows.set('foreign', recordOf('shop', other, { account: '111122223333' }))
    await administration.load()
    await administration.revoke(account, 'shop')
    expect(store.find(token)).toBeUndefined()
    expect(store.find(other)).toBeDefined()
    await expect(administration.revoke(account, 'shop')).rejects.toMatchObject({ code: 'NotFound' })
  })

  it('is not brought back by a read that began before', async () => {
    const { store, administration, rows, hold, release } = open()
    const token = randomBytes(32)
    rows.set('shop', recordOf('shop', token))
    hold()
    const loading = administration.load()
    await administration.revoke(account, 'shop')
    release()
    await loading
    await turn()
    expect(store.find(token)).toBeUndefined()
  })

  it('is out of force when its row turns out to be damaged', async () => {
    const { store, administration, rows, fail } = open()
    const token = randomBytes(32)
    rows.set('shop', recordOf('shop', token))
    await administration.load()
    fail(new GatewayError('IntegrityFailed'))
    await expect(administration.revoke(account, 'shop')).rejects.toMatchObject({ code: 'IntegrityFailed' })
    expect(store.find(token)).toBeUndefined()
  })
})

describe('changes that another gateway made', () => {
  it('hold from the moment they are told: the old binding goes before the new one is read', async () => {
    const { store, administration, rows, tell, hold, release } = open()
    const [old, renewed] = [randomBytes(32), randomBytes(32)]
    rows.set('shop', recordOf('shop', old))
    await administration.load()
    hold()
    rows.set('shop', recordOf('shop', renewed))
    tell('shop')
    expect(store.find(old)).toBeUndefined()
    expect(store.find(renewed)).toBeUndefined()
    release()
    await turn()
    expect(store.find(renewed)).toBeDefined()
  })

  it('end all bindings of a key that is gone', async () => {
    const { store, administration, rows, tell } = open()
    const token = randomBytes(32)
    const elsewhere = randomBytes(32)
    rows.set('shop', recordOf('shop', token))
    rows.set('blog', recordOf('blog', elsewhere, { keyId: 'another' }))
    await administration.load()
    tell('*')
    expect(store.find(token)).toBeUndefined()
    expect(store.find(elsewhere)).toBeDefined()
  })

  it('of which it is not known what they are put everything out of force until it is read again', async () => {
    const { store, administration, rows, tellAnything, hold, release } = open()
    const token = randomBytes(32)
    rows.set('shop', recordOf('shop', token))
    await administration.load()
    hold()
    tellAnything()
    expect(store.size).toBe(0)
    release()
    await turn()
    expect(store.find(token)).toBeDefined()
  })

  it.each(['shop', '*'])('leave it open whether a token is known until they are read: %s', async (changed) => {
    const { store, administration, rows, tell, tellAnything, hold, release } = open()
    const token = randomBytes(32)
    rows.set('shop', recordOf('shop', token))
    await administration.load()
    expect(store.isUnread).toBe(false)
    hold()
    if (changed === '*') tellAnything()
    else tell(changed)
    expect(store.isUnread).toBe(true)
    const read = store.whenRead()
    release()
    await read
    expect(store.find(token)).toMatchObject({ name: 'shop' })
    expect(store.isUnread).toBe(false)
  })

  it('that cannot be read are reported and stay out of force', async () => {
    const { store, administration, rows, tell, fail, failures } = open()
    const token = randomBytes(32)
    rows.set('shop', recordOf('shop', token))
    await administration.load()
    fail(new Error('disk'))
    tell('shop')
    await turn()
    expect(failures.length).toBeGreaterThan(0)
    expect(store.find(token)).toBeUndefined()
    await expect(store.whenRead()).rejects.toMatchObject({ code: 'CatalogUnavailable' })
    fail(undefined)
    await administration.load()
    expect(store.isUnread).toBe(false)
    expect(store.find(token)).toBeDefined()
    administration[Symbol.dispose]()
  })
})
