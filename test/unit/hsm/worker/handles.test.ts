/** The handle cache on a real token; look-ups are counted where they enter the pool. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { jobOp } from '../../../../src/hsm/worker/addon.ts'
import { CKA, CKK, CKM, CKO } from '../../../../src/hsm/worker/cryptoki.ts'
import { HandleCache, objectName } from '../../../../src/hsm/worker/handles.ts'
import { encodeTemplate } from '../../../../src/hsm/worker/pack.ts'
import { type InProcess, openInProcess } from '../../../support/hsm-in-process.ts'

let hsm: InProcess
let cache: HandleCache
beforeAll(async () => {
  hsm = await openInProcess()
})
afterAll(() => hsm?.[Symbol.asyncDispose]())
beforeEach(() => {
  cache = new HandleCache(hsm.jobs)
})

async function tokenKey(objectId: Buffer, label: string): Promise<bigint> {
  const aux = encodeTemplate([
    [CKA.class, CKO.secretKey],
    [CKA.keyType, CKK.genericSecret],
    [CKA.token, true],
    [CKA.private, true],
    [CKA.sensitive, true],
    [CKA.valueLen, 32],
    [CKA.id, objectId],
    [CKA.label, Buffer.from(label)],
  ])
  const job = { mechanism: CKM.genericSecretKeyGen, aux }
  return (await hsm.jobs.need(hsm.call(), jobOp.generateKey, job)).handle
}

async function countFinds(work: () => Promise<unknown>): Promise<number> {
  const run = vi.spyOn(hsm.jobs, 'run')
  try {
    await work()
    return run.mock.calls.filter(([, op]) => op === jobOp.find).length
  } finally {
    run.mockRestore()
  }
}

const find = (objectId: Buffer, label = '') => cache.find(hsm.call(), 'secret', objectId, label)

describe('the handle cache', () => {
  it('knows after one enumeration what the token holds', async () => {
    const objectId = randomBytes(16)
    const handle = await tokenKey(objectId, 'hsmgate-tls:x:1')
    expect(await cache.load(hsm.call())).toBeGreaterThan(0)
    const object = cache.cached(objectName('secret', objectId, ''))
    expect(object).toMatchObject({ handle, keyType: CKK.genericSecret, purpose: 'tls', label: 'hsmgate-tls:x:1' })
    expect(await countFinds(() => find(objectId))).toBe(0)
    expect(await countFinds(() => find(objectId, 'hsmgate-tls:x:1'))).toBe(0)
  })

  it('looks a new object up once for all who wait', async () => {
    const objectId = randomBytes(16)
    const handle = await tokenKey(objectId, 'hsmgate:x:1')
    const finds = await countFinds(async () => {
      const objects = await Promise.all(Array.from({ length: 20 }, () => find(objectId)))
      expect(new Set(objects.map((object) => object.handle))).toEqual(new Set([handle]))
    })
    expect(finds).toBe(1)
  })

  it('remembers for a moment that an object is absent, until it is told to forget', async () => {
    const objectId = randomBytes(16)
    const absent = () => expect(find(objectId)).rejects.toMatchObject({ failure: { code: 'KeyUnavailable' } })
    expect(await countFinds(async () => [await absent(), await absent()])).toBe(1)
    await tokenKey(objectId, 'hsmgate:x:1')
    await absent()
    cache.forget(objectId, '')
    expect((await find(objectId)).objectId.equals(objectId)).toBe(true)
  })

  it('does not choose between two objects of one id, but finds each by label', async () => {
    const objectId = randomBytes(3)
    const one = await tokenKey(objectId, 'one')
    const two = await tokenKey(objectId, 'two')
    for (const isLoaded of [false, true]) {
      cache = new HandleCache(hsm.jobs)
      if (isLoaded) await cache.load(hsm.call())
      await expect(find(objectId)).rejects.toThrow(/several objects/)
      expect((await find(objectId, 'one')).handle).toBe(one)
      expect((await find(objectId, 'two')).handle).toBe(two)
    }
    cache.forget(objectId, '')
    expect(cache.cached(objectName('secret', objectId, 'one'))).toBeUndefined()
  })

  it('keeps ids apart that begin alike, and classes', async () => {
    const objectId = randomBytes(2)
    await tokenKey(Buffer.concat([objectId, Buffer.from([0])]), 'longer')
    await expect(find(objectId)).rejects.toMatchObject({ failure: { code: 'KeyUnavailable' } })
    const longer = Buffer.concat([objectId, Buffer.from([0])])
    expect((await find(longer)).label).toBe('longer')
    const asPrivate = cache.find(hsm.call(), 'private', longer, '')
    await expect(asPrivate).rejects.toMatchObject({ failure: { code: 'KeyUnavailable' } })
  })

  it('finds an object again whose handle has gone stale', async () => {
    const objectId = randomBytes(16)
    const handle = await tokenKey(objectId, 'hsmgate:x:1')
    const stale = await find(objectId)
    await hsm.jobs.need(hsm.call(), jobOp.destroy, { key: handle })
    const fresh = await tokenKey(objectId, 'hsmgate:x:1')
    expect((await cache.refind(hsm.call(), stale, '')).handle).toBe(fresh)
    expect((await find(objectId)).handle).toBe(fresh)
  })

  it('has a token object that nobody destroys as if it were a session object', async () => {
    const objectId = randomBytes(16)
    const handle = await tokenKey(objectId, 'hsmgate:x:1')
    expect(await hsm.jobs.destroySession(hsm.call(), handle)).toBeUndefined()
    expect(await hsm.jobs.destroySession(hsm.call(), 0xfffffffn)).toBeUndefined()
    expect((await find(objectId)).handle).toBe(handle)
  })

  it('does not keep what was found before it was told to forget', async () => {
    const objectId = randomBytes(16)
    await tokenKey(objectId, 'hsmgate:x:1')
    const finding = find(objectId)
    cache.forget(objectId, '')
    await finding
    expect(cache.cached(objectName('secret', objectId, ''))).toBeUndefined()
  })

  it('lets nobody fail by the deadline of another', async () => {
    const objectId = randomBytes(16)
    const handle = await tokenKey(objectId, 'hsmgate:x:1')
    const hurried = cache.find(
      { operation: 'mac', endsAtMs: 0, hsmMicros: 0, early: undefined },
      'secret',
      objectId,
      '',
    )
    const patient = find(objectId)
    await expect(hurried).rejects.toMatchObject({ failure: { code: 'DeadlineExceeded' } })
    expect((await patient).handle).toBe(handle)
  })
})
