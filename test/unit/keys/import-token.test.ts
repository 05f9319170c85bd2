import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/error.ts'
import { importTokenMs, openImportToken, sealImportToken, type TokenSealer } from '../../../src/keys/import-token.ts'

const sealingKey = randomBytes(32)

/** What the system key does, by node:crypto. */
const sealer: TokenSealer = {
  async seal(secret, context) {
    const iv = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', sealingKey, iv).setAAD(Buffer.from(context))
    return Buffer.concat([iv, cipher.update(secret), cipher.final(), cipher.getAuthTag()])
  },
  async unseal(sealed, context) {
    const bytes = Buffer.from(sealed)
    try {
      const decipher = createDecipheriv('aes-256-gcm', sealingKey, bytes.subarray(0, 12))
      decipher.setAAD(Buffer.from(context)).setAuthTag(bytes.subarray(-16))
      return Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()])
    } catch {
      throw new GatewayError('CiphertextInvalid')
    }
  },
}

const key = { account: '111122223333', region: 'us-east-1', keyId: '11111111-2222-4333-8444-555555555555' }
const issuedAt = 1_790_000_000_000
const token = { key, algorithm: 'RSAES_OAEP_SHA_1', wrappingKeyId: 'import-x-1', issuedAt } as const

describe('an import token', () => {
  it('comes back as it was given out, for 24 hours', async () => {
    const sealed = await sealImportToken(sealer, token)
    expect(await openImportToken(sealer, sealed, key, issuedAt)).toEqual(token)
    expect(await openImportToken(sealer, sealed, key, issuedAt + importTokenMs - 1)).toEqual(token)
    await expect(openImportToken(sealer, sealed, key, issuedAt + importTokenMs)).rejects.toMatchObject({
      code: 'ImportTokenExpired',
    })
  })

  it('has expired when the clock was set back before it was made', async () => {
    const sealed = await sealImportToken(sealer, token)
    expect(await openImportToken(sealer, sealed, key, issuedAt - 60_000)).toEqual(token)
    await expect(openImportToken(sealer, sealed, key, issuedAt - 6 * 60_000)).rejects.toMatchObject({
      code: 'ImportTokenExpired',
    })
  })

  it.each([
    ['another account', { ...key, account: '999988887777' }],
    ['another Region', { ...key, region: 'eu-west-1' }],
    ['another key', { ...key, keyId: '11111111-2222-4333-8444-666666666666' }],
  ])('is invalid for %s, also after it expired', async (_what, other) => {
    const sealed = await sealImportToken(sealer, token)
    for (const now of [issuedAt, issuedAt + 2 * importTokenMs]) {
      await expect(openImportToken(sealer, sealed, other, now)).rejects.toMatchObject({ code: 'ImportTokenInvalid' })
    }
  })

  it('is invalid when a bit of it is changed, or when it is something else that we sealed', async () => {
    const sealed = await sealImportToken(sealer, token)
    sealed[20] = sealed[20]! ^ 1
    const foreign = await sealer.seal(Buffer.from('["a","b"]'), 'access key')
    for (const bytes of [sealed, foreign, randomBytes(5)]) {
      await expect(openImportToken(sealer, bytes, key, issuedAt)).rejects.toMatchObject({ code: 'ImportTokenInvalid' })
    }
  })
})
