/** What the capability probe finds out about SoftHSM 2.6.1, whose gaps are known (softhsm/capabilities.json), and that it leaves nothing behind. */
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { probeVersion } from '../../src/hsm/frames.ts'
import type { Capabilities } from '../../src/hsm/port.ts'
import { startWorker, type TestWorker } from '../support/hsm-worker.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

describe('the capability probe on SoftHSM', () => {
  let token: TestToken
  let serve: TestWorker
  let proven: Capabilities
  beforeAll(async () => {
    token = await createTestToken()
    serve = await startWorker(token, { role: 'serve' })
    proven = (await serve.ask('probe', {})).capabilities as Capabilities
  })
  afterAll(async () => {
    await serve?.[Symbol.asyncDispose]()
    await token?.[Symbol.asyncDispose]()
  })

  it('proves every spec and use that SoftHSM has', () => {
    expect(proven.probe).toBe(probeVersion)
    expect(proven.specs).toEqual({
      SYMMETRIC_DEFAULT: ['ENCRYPT_DECRYPT', 'WRAP_UNWRAP'],
      RSA_2048: ['ENCRYPT_DECRYPT', 'SIGN_VERIFY', 'WRAP_UNWRAP'],
      RSA_3072: ['ENCRYPT_DECRYPT', 'SIGN_VERIFY', 'WRAP_UNWRAP'],
      RSA_4096: ['ENCRYPT_DECRYPT', 'SIGN_VERIFY', 'WRAP_UNWRAP'],
      ECC_NIST_P256: ['SIGN_VERIFY', 'KEY_AGREEMENT'],
      ECC_NIST_P384: ['SIGN_VERIFY', 'KEY_AGREEMENT'],
      ECC_NIST_P521: ['SIGN_VERIFY', 'KEY_AGREEMENT'],
      ECC_SECG_P256K1: ['SIGN_VERIFY'],
      ECC_NIST_EDWARDS25519: ['SIGN_VERIFY'],
      HMAC_224: ['GENERATE_VERIFY_MAC'],
      HMAC_256: ['GENERATE_VERIFY_MAC'],
      HMAC_384: ['GENERATE_VERIFY_MAC'],
      HMAC_512: ['GENERATE_VERIFY_MAC'],
    })
    expect([...proven.algorithms].sort()).toEqual(
      [
        ...['SHA_1', 'SHA_224', 'SHA_256', 'SHA_384', 'SHA_512'].map((hash) => `RSASSA_PKCS1_V1_5_${hash}`),
        ...['SHA_256', 'SHA_384', 'SHA_512'].map((hash) => `RSASSA_PSS_${hash}`),
        ...['224', '256', '384', '512'].map((bits) => `HMAC_SHA_${bits}`),
        ...['ECDSA', 'ED25519', 'ECDH', 'SEAL', 'AES_GCM', 'MATERIAL_ID', 'AES_KWP'],
        ...['RSA_AES_KEY_WRAP_SHA_1', 'RSA_AES_KEY_WRAP_SHA_256', 'UNWRAP RSAES_OAEP_SHA_1'],
        ...['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'],
        // the private half of an Ed25519 pair does not come out of SoftHSM by wrapping
        ...[
          'ECC_NIST_P256',
          'ECC_NIST_P384',
          'ECC_NIST_P521',
          'ECC_SECG_P256K1',
          'RSA_2048',
          'RSA_3072',
          'RSA_4096',
        ].map((spec) => `DATA_KEY_PAIR ${spec}`),
      ].sort(),
    )
    expect(proven).toMatchObject({ construction: 'derived', gcmIv: 'caller', oaepSha256: 'raw' })
  })

  it('does not believe the plain Ed25519 signature that SoftHSM gives for Ed25519ph', async () => {
    expect(proven.algorithms).not.toContain('ED25519_PH')
    const gaps = JSON.parse(
      await readFile(path.resolve(import.meta.dirname, '../../softhsm/capabilities.json'), 'utf8'),
    )
    expect(gaps.lacks).toHaveProperty('ed25519ph')
    expect(proven.refused.find(({ what }) => what === 'ED25519_PH')?.why).toMatch(/plain Ed25519 signature/)
  })

  it('says why it refuses what it refuses', () => {
    const refused = proven.refused.map(({ what }) => what)
    expect(refused).toContain('UNWRAP RSAES_OAEP_SHA_256')
    expect(refused).toContain('ML_DSA_65')
    expect(proven.refused.every(({ why }) => why.length > 0)).toBe(true)
  })

  it('destroys all that it made', async () => {
    const { state } = await serve.ask('ping', {})
    expect(state).toMatchObject({ sessionObjects: 0, workingKeys: 0, handles: 0, queued: 0 })
  })

  it('takes no import through memory for proven, allowed or not', async () => {
    await using lenient = await startWorker(token, { role: 'serve', allowImportThroughMemory: true })
    const { capabilities } = await lenient.ask('probe', {})
    expect((capabilities as Capabilities).algorithms).not.toContain('UNWRAP RSAES_OAEP_SHA_256')
  })

  it('reports no more time than it was given', async () => {
    expect(await serve.refusal('probe', {}, 1)).toMatchObject({ code: 'DeadlineExceeded' })
  })
})
