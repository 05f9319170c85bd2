/** Working keys on a real token: what is derived, shared, kept and destroyed is read from the token itself. */
import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Creating } from '../../../../src/hsm/worker/creating.ts'
import { keyShapes } from '../../../../src/hsm/worker/key-shapes.ts'
import type { KeyRef } from '../../../../src/hsm/worker/objects.ts'
import { Unwrapping } from '../../../../src/hsm/worker/unwrapping.ts'
import { type WorkingKey, WorkingKeys } from '../../../../src/hsm/worker/working-keys.ts'
import { type InProcess, openInProcess } from '../../../support/hsm-in-process.ts'

let hsm: InProcess
let key: KeyRef
let system: KeyRef
let before: ReadonlySet<bigint>
let keys: WorkingKeys

async function backingKey(purpose: 'kms' | 'system'): Promise<KeyRef> {
  const { jobs, objects, facts, call } = hsm
  const creating = new Creating(jobs, objects, facts, new Unwrapping(jobs, objects, facts, false))
  const spec = 'SYMMETRIC_DEFAULT'
  const intent = {
    group: '',
    spec,
    usage: 'ENCRYPT_DECRYPT',
    purpose,
    objectId: randomBytes(16),
    keyId: 'k',
    number: 1,
  }
  const { session } = await creating.generateSession(call(), { ...intent, residence: 'session' })
  const shape = keyShapes[spec]!
  const objectId = Buffer.alloc(0)
  const name = `#${session}`
  const sealName = `${purpose} ${name}`
  return { purpose, spec, shape, construction: 'derived', session, objectId, label: '', name, sealName }
}

beforeAll(async () => {
  hsm = await openInProcess()
  key = await backingKey('kms')
  system = await backingKey('system')
})
afterAll(() => hsm?.[Symbol.asyncDispose]())

const limits = { opening: 2, sealing: 1, messages: 3 }
beforeEach(async () => {
  keys = new WorkingKeys(hsm.jobs, hsm.objects, 'ecb', limits)
  before = new Set(await hsm.sessionSecrets())
})
afterEach(async () => {
  keys.forget(() => true)
})

/** Working keys that live in the token now. Nobody waits for destructions, hence asked until it is so. */
async function alive(): Promise<number> {
  return (await hsm.sessionSecrets()).filter((handle) => !before.has(handle)).length
}

async function sealing(of = key): Promise<WorkingKey> {
  return keys.borrowSealing(of) ?? keys.deriveSealing(hsm.call(), of)
}
async function opening(salt: Buffer, of = key): Promise<WorkingKey> {
  return keys.borrowOpening(of, salt) ?? keys.deriveOpening(hsm.call(), of, salt)
}
function saltFor(purposeByte: number): Buffer {
  const salt = randomBytes(32)
  salt[0] = salt[16] = purposeByte
  salt[1] = 0
  salt[17] = 1
  return salt
}

describe('sealing keys', () => {
  it('are derived once for all who ask at the same time', async () => {
    const borrowed = await Promise.all([sealing(), sealing(), sealing()])
    expect(new Set(borrowed.map(({ handle }) => handle)).size).toBe(1)
    await expect.poll(alive).toBe(1)
    for (const working of borrowed) keys.putBack(working, true)
    await expect.poll(alive).toBe(1)
  })

  it('carry purpose and block number in each block of their salt', async () => {
    const [one, two] = [await sealing(), await sealing(system)]
    expect([one.salt[0], one.salt[1], one.salt[16], one.salt[17]]).toEqual([1, 0, 1, 1])
    expect([two.salt[0], two.salt[1], two.salt[16], two.salt[17]]).toEqual([4, 0, 4, 1])
    keys.putBack(one, true)
    keys.putBack(two, true)
  })

  it('end after their allowance of messages, and are destroyed when the last user is done', async () => {
    const used = [await sealing(), await sealing(), await sealing()] as const
    const next = await sealing()
    expect(next.salt.equals(used[0].salt)).toBe(false)
    await expect.poll(alive).toBe(2)
    keys.putBack(used[0], true)
    keys.putBack(used[1], true)
    await expect.poll(alive).toBe(2)
    keys.putBack(used[2], true)
    await expect.poll(alive).toBe(1)
    keys.putBack(next, true)
  })

  it('make room for another backing key when there are too many', async () => {
    keys.putBack(await sealing(), true)
    keys.putBack(await sealing(system), true)
    await expect.poll(alive).toBe(1)
  })

  it('are not given to purposes that seal nothing', async () => {
    const tls = { ...key, purpose: 'tls' } as const
    await expect(keys.deriveSealing(hsm.call(), tls)).rejects.toThrow(/seal nothing/)
  })

  it('are not derived when derivation is not proven', async () => {
    const none = new WorkingKeys(hsm.jobs, hsm.objects, 'none', limits)
    await expect(none.deriveSealing(hsm.call(), key)).rejects.toMatchObject({ failure: { code: 'Unsupported' } })
  })
})

describe('opening keys', () => {
  it('are kept once they have opened a message', async () => {
    const salt = saltFor(1)
    const working = await opening(salt)
    keys.putBack(working, true)
    await expect.poll(alive).toBe(1)
    const again = await opening(salt)
    expect(again).toBe(working)
    keys.putBack(again, false)
    await expect.poll(alive).toBe(1)
  })

  it('are destroyed at once when they have opened nothing (made-up salts drive no good key out)', async () => {
    const good = saltFor(1)
    keys.putBack(await opening(good), true)
    for (let i = 0; i < 10; i++) keys.putBack(await opening(saltFor(1)), false)
    await expect.poll(alive).toBe(1)
    expect(keys.borrowOpening(key, good)?.users).toBe(1)
  })

  it('are derived once for all who ask at the same time, and kept when one of them succeeds', async () => {
    const salt = saltFor(1)
    const borrowed = await Promise.all([opening(salt), opening(salt), opening(salt)])
    expect(new Set(borrowed).size).toBe(1)
    keys.putBack(borrowed[0], false)
    keys.putBack(borrowed[1], true)
    keys.putBack(borrowed[2], false)
    await expect.poll(alive).toBe(1)
    expect(keys.borrowOpening(key, salt)).toBe(borrowed[0])
  })

  it('go, least recently used first, when there are too many, but not under their users', async () => {
    const salts = [saltFor(1), saltFor(1), saltFor(1)] as const
    keys.putBack(await opening(salts[0]), true)
    keys.putBack(await opening(salts[1]), true)
    const inUse = await opening(salts[1])
    keys.putBack(await opening(salts[0]), true)
    keys.putBack(await opening(salts[2]), true)
    expect(keys.borrowOpening(key, salts[1])).toBeUndefined()
    await expect.poll(alive).toBe(3)
    keys.putBack(inUse, true)
    await expect.poll(alive).toBe(2)
  })

  it('are the sealing key itself for its own messages', async () => {
    const sealed = await sealing()
    const opened = await opening(sealed.salt)
    expect(opened).toBe(sealed)
    await expect.poll(alive).toBe(1)
    keys.putBack(sealed, true)
    keys.putBack(opened, true)
  })

  it.each([
    ['the material id', 2],
    ['system sealing', 4],
    ['tls', 5],
    ['nothing', 0],
  ])('are not derived from a salt for %s', async (_name, byte) => {
    const refused = keys.deriveOpening(hsm.call(), key, saltFor(byte))
    await expect(refused).rejects.toMatchObject({ failure: { code: 'CiphertextInvalid', rv: 0 } })
    await expect.poll(alive).toBe(0)
  })

  it('are not derived from salts with wrong block numbers, mixed purposes or another length', async () => {
    const salts = [saltFor(1), saltFor(1), saltFor(1), saltFor(1)] as const
    salts[0][1] = 1
    salts[1][17] = 0
    salts[2][16] = 2
    for (const salt of [salts[0], salts[1], salts[2], salts[3].subarray(16)]) {
      const refused = keys.deriveOpening(hsm.call(), key, salt)
      await expect(refused).rejects.toMatchObject({ failure: { code: 'CiphertextInvalid' } })
    }
  })

  it('of one purpose are not found for another', async () => {
    const salt = saltFor(1)
    keys.putBack(await opening(salt), true)
    const asSystem = { ...key, purpose: 'system', sealName: `system ${key.name}` } as const
    expect(keys.borrowOpening(asSystem, salt)).toBeUndefined()
    await expect(opening(salt, asSystem)).rejects.toMatchObject({ failure: { code: 'CiphertextInvalid' } })
  })

  it('say by their salt with which mechanism they are derived', async () => {
    const salt = saltFor(0x81)
    const working = await opening(salt)
    keys.putBack(working, true)
    expect(keys.borrowOpening(key, salt)).toBe(working)
  })
})

describe('forgetting', () => {
  it('destroys what was derived from the object, and spares the rest', async () => {
    keys = new WorkingKeys(hsm.jobs, hsm.objects, 'ecb', { opening: 8, sealing: 8, messages: 3 })
    keys.putBack(await sealing(), true)
    keys.putBack(await opening(saltFor(1)), true)
    keys.putBack(await sealing(system), true)
    await expect.poll(alive).toBe(3)
    keys.forget((name) => name === key.name)
    await expect.poll(alive).toBe(1)
    expect(keys.borrowSealing(key)).toBeUndefined()
    expect(keys.borrowSealing(system)?.users).toBe(1)
  })

  it('reaches a key that was being derived meanwhile', async () => {
    const salt = saltFor(1)
    const deriving = opening(salt)
    keys.forget((name) => name === key.name)
    const working = await deriving
    keys.putBack(working, true)
    expect(keys.borrowOpening(key, salt)).toBeUndefined()
    await expect.poll(alive).toBe(0)
  })

  it('does not destroy what carries the handle of a key that the module has lost', async () => {
    const before = (await hsm.sessionSecrets()).length
    const working = await sealing()
    keys.drop(working)
    keys.putBack(working, false)
    expect(keys.borrowSealing(key)).toBeUndefined()
    await sealing(system)
    expect(await hsm.sessionSecrets()).toHaveLength(before + 2)
    await hsm.jobs.destroySession(hsm.call(), working.handle)
  })

  it('leaves a key to its users and destroys it after them', async () => {
    const working = await sealing()
    keys.forget((name) => name === key.name)
    await expect.poll(alive).toBe(1)
    keys.putBack(working, true)
    await expect.poll(alive).toBe(0)
  })
})
