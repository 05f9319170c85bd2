/** What one worker makes of a module in trouble: every return value through the shim, quirks of SoftHSM, sessions that close beneath it. */
import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { ObjectSummary } from '../../src/hsm/port.ts'
import { findProfile } from '../../src/hsm/worker/profiles.ts'
import { judge, rvTable } from '../../src/hsm/worker/rv.ts'
import {
  algorithmCode,
  generateKey,
  keyFields,
  startWorker,
  type TestKey,
  type TestWorker,
} from '../support/hsm-worker.ts'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'

let token: ShimmedToken
let manage: TestWorker
let serve: TestWorker
let signing: TestKey
let sealing: TestKey

beforeAll(async () => {
  token = await createShimmedToken()
  manage = await startWorker(token, { role: 'manage' })
  serve = await startWorker(token)
  signing = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' })
  sealing = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
})
afterEach(() => token.clear())
afterAll(async () => {
  await serve?.[Symbol.asyncDispose]()
  await manage?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

const sign = () => ({ ...keyFields(signing), algorithm: algorithmCode('ECDSA'), input: randomBytes(32) })
const seal = (data: Buffer) => ({
  ...keyFields(sealing),
  algorithm: algorithmCode('SEAL'),
  prefix: Buffer.alloc(0),
  context: Buffer.alloc(0),
  data,
})
const hex = (rv: number) => `0x${rv.toString(16)}`

describe('a return value', () => {
  // BUFFER_TOO_SMALL makes the pool grow the buffer and ask again
  const codes = [...rvTable.keys(), 0x1c0, 0x80000123].filter((rv) => rv !== 0 && rv !== 0x150)

  it('of C_Sign reaches the gateway with its number, name and action, and the worker serves on', async () => {
    const profile = findProfile('softhsm')
    for (const rv of codes) {
      token.rules([`C_Sign rv=${hex(rv)}`])
      const failure = await serve.refusal('sign', sign())
      const { action, code } = judge(rv, { call: 'C_Sign', operation: 'sign', profile })
      expect(failure, hex(rv)).toMatchObject({ action, code, rv, call: 'C_Sign' })
      token.clear()
      expect((await serve.ask('sign', sign())).signature).toHaveLength(64)
    }
  })

  it('of C_Decrypt that speaks of the data is the one error of all bad ciphertexts', async () => {
    const sealed = Buffer.from((await serve.ask('encrypt', seal(Buffer.from('x')))).output)
    for (const rv of [0x05, 0x20, 0x21, 0x40, 0x41, 0x42]) {
      token.rules([`C_Decrypt rv=${hex(rv)}`])
      expect(await serve.refusal('decrypt', seal(sealed))).toMatchObject({ code: 'CiphertextInvalid', action: 'A' })
    }
    token.rules(['C_Decrypt rv=0x30'])
    expect(await serve.refusal('decrypt', seal(sealed))).toMatchObject({ code: 'HsmFailure', action: 'S' })
  })
})

describe('a stale handle', () => {
  it('is looked up again once', async () => {
    await serve.ask('sign', sign())
    token.rules(['C_SignInit to=1 rv=0x60'])
    expect((await serve.ask('sign', sign())).signature).toHaveLength(64)
    token.rules(['C_SignInit rv=0x82'])
    expect(await serve.refusal('sign', sign())).toMatchObject({ code: 'KeyUnavailable', action: 'H', rv: 0x82 })
  })

  // 0x63: the module gave the handle to a key of another type
  it.each(['0x60', '0x63'])('is looked up once for all whom %s met', async (rv) => {
    await using single = await startWorker(token, { sessions: 1 })
    await single.ask('sign', sign())
    const before = token.count('C_FindObjectsInit')
    // the others have queued up behind the first when it fails
    token.rules(['C_SignInit to=1 stale', 'C_SignInit to=1 delay=100', `C_SignInit to=32 rv=${rv}`])
    const answers = await Promise.all(Array.from({ length: 32 }, () => single.ask('sign', sign())))
    for (const { signature } of answers) expect(signature).toHaveLength(64)
    expect(token.count('C_FindObjectsInit') - before).toBe(1)
  })

  it('of a working key has it derived anew, and no object destroyed', async () => {
    const sealed = Buffer.from((await serve.ask('encrypt', seal(Buffer.from('x')))).output)
    const destroyed = token.count('C_DestroyObject')
    token.rules(['C_EncryptInit to=2 rv=0x60', 'C_DecryptInit to=2 rv=0x60'])
    await serve.ask('encrypt', seal(Buffer.from('x')))
    expect(Buffer.from((await serve.ask('decrypt', seal(sealed))).output).toString()).toBe('x')
    expect(token.count('C_DestroyObject')).toBe(destroyed)
  })
})

describe('a signature or MAC that ends early', () => {
  // planned: the worker answers such a request without its event loop
  it.each([false, true])('is withheld, planned: %s', async (isPlanned) => {
    await using worker = await startWorker(token)
    const macKey = await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' })
    const mac = { ...keyFields(macKey), algorithm: algorithmCode('HMAC_SHA_256'), message: Buffer.from('message') }
    if (isPlanned) {
      await worker.ask('sign', sign())
      expect((await worker.ask('mac', mac)).mac).toHaveLength(32)
    }
    token.rules(['C_Sign short=1'])
    expect(await worker.refusal('sign', sign())).toMatchObject({ code: 'HsmFailure' })
    expect(await worker.refusal('mac', mac)).toMatchObject({ code: 'HsmFailure' })
  })
})

describe('a session object', () => {
  it('is destroyed all the same when its caller had no time to wait for it', async () => {
    await using single = await startWorker(token, { sessions: 1 })
    const key = await generateKey(single, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC', residence: 'session' })
    const before = token.count('C_DestroyObject')
    token.rules(['C_Sign to=1 hang=300'])
    const busy = single.ask('sign', sign())
    expect(await single.refusal('destroy', keyFields(key), 20)).toMatchObject({ code: 'DeadlineExceeded' })
    await busy
    await expect.poll(() => token.count('C_DestroyObject') - before).toBe(1)
  })
})

describe('the making of a token key', () => {
  it.each(['0x5', '0x6', '0xd1'])('is tried once more on SoftHSM after %s', async (rv) => {
    token.rules([`C_GenerateKeyPair to=1 rv=${rv}`])
    const key = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' })
    expect((await manage.ask('attributes', keyFields(key))).object).not.toBeNull()
  })

  it('leaves one object when the module made it and failed afterwards', async () => {
    token.rules(['C_GenerateKeyPair to=1 after rv=0x5'])
    const key = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' })
    token.clear()
    const objects = (await manage.ask('enumerate', {})).objects as ObjectSummary[]
    expect(objects.filter(({ objectId }) => key.objectId.equals(objectId))).toHaveLength(1)
  })

  it('is not tried twice when it keeps failing, nor for other reasons', async () => {
    const objectId = randomBytes(16)
    const intent = { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC', objectId } as const
    for (const [rv, calls] of [
      ['0x5', 2],
      ['0x30', 1],
    ] as const) {
      const before = token.count('C_GenerateKey')
      token.rules([`C_GenerateKey rv=${rv}`])
      await expect(generateKey(manage, intent)).rejects.toThrow(/HsmFailure/)
      expect(token.count('C_GenerateKey') - before).toBe(calls)
    }
    token.clear()
    await generateKey(manage, intent)
  })

  it('leaves no object whose attributes could not be read back', async () => {
    const objectId = randomBytes(16)
    token.rules(['C_GetAttributeValue rv=0x30'])
    const failed = generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY', objectId })
    await expect(failed).rejects.toThrow(/HsmFailure/)
    token.clear()
    const objects = (await manage.ask('enumerate', {})).objects as ObjectSummary[]
    expect(objects.filter((object) => objectId.equals(object.objectId))).toHaveLength(0)
  })

  it('opens a new session also while another process writes to the token', async () => {
    token.rules(['C_FindObjectsInit to=1 rv=0xb3', 'C_GetTokenInfo to=1 rv=0x5'])
    await manage.ask('enumerate', {})
    expect(token.hits(1)).toBe(1)
  })

  it('goes on in a new session when the old one was closed', async () => {
    token.rules(['C_GenerateKey to=1 rv=0xb3'])
    await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' })
  })
})

describe('the proof at the start', () => {
  it('does not take a busy token for one that can do less', async () => {
    token.rules(['C_DeriveKey rv=0x31'])
    await expect(startWorker(token)).rejects.toThrow(/HsmBusy/)
  })

  it('takes a token that cannot derive for what it is', async () => {
    token.rules(['C_DeriveKey rv=0x70'])
    await using direct = await startWorker(token, { role: 'manage' })
    const key = await generateKey(direct, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
    expect(key.construction).toBe('direct')
    const { output } = await serve.ask('encrypt', { ...seal(Buffer.from('x')), ...keyFields(key) })
    expect(output[0]).toBe(0)
    const opened = await serve.ask('decrypt', { ...seal(Buffer.from(output)), ...keyFields(key) })
    expect(Buffer.from(opened.output).toString()).toBe('x')
    token.clear()
    const asDerived = { ...seal(Buffer.from('x')), ...keyFields(key, { construction: 'derived' }) }
    expect(await serve.refusal('encrypt', asDerived)).toMatchObject({ code: 'KeyUsageInvalid' })
  })

  it('believes no module that ignores what a tag says', async () => {
    token.rules(['C_Decrypt rv=0x0 after'])
    await using blind = await startWorker(token)
    token.clear()
    const { capabilities } = await blind.ask('probe', {})
    expect(capabilities).toMatchObject({ construction: 'none', gcmIv: 'none' })
  })
})
