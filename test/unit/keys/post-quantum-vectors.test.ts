/** Published vectors of FIPS 203 and FIPS 204 (test/vectors) against what verifies and encapsulates here. */
import { createHash, createPrivateKey, createPublicKey, decapsulate, encapsulate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { keyShapes, type ParameterSet } from '../../../src/hsm/worker/key-shapes.ts'
import { latticePublicKey } from '../../../src/hsm/worker/spki.ts'
import { algorithms, type SigningAlgorithm } from '../../../src/keys/algorithms.ts'
import { isSignatureValid } from '../../../src/keys/signature.ts'

function read(name: string): Readonly<Record<string, Buffer>> {
  const text = readFileSync(new URL(`../../vectors/${name}.json`, import.meta.url), 'utf8')
  const { source: _, parameterSet: __, ...values } = JSON.parse(text) as Record<string, string>
  return Object.fromEntries(Object.entries(values).map(([member, hex]) => [member, Buffer.from(hex, 'hex')]))
}

const setOf = (spec: 'ML_DSA_44' | 'ML_KEM_512') => keyShapes[spec]?.parameters as ParameterSet

describe('the vector of ML-DSA-44', () => {
  const { publicKey, message, signature } = read('ml-dsa-44') as Record<'publicKey' | 'message' | 'signature', Buffer>
  const request = {
    algorithm: algorithms.get('ML_DSA_SHAKE_256') as SigningAlgorithm,
    publicKey: latticePublicKey(setOf('ML_DSA_44'), publicKey),
    signature,
  }

  it('verifies as a message and by its mu, under the public key as a module shows it', async () => {
    const shake = (...parts: readonly Uint8Array[]) => {
      const hash = createHash('shake256', { outputLength: 64 })
      for (const part of parts) hash.update(part)
      return hash.digest()
    }
    const mu = shake(shake(publicKey), Buffer.from([0, 0]), message)
    expect(await isSignatureValid({ ...request, message, messageType: 'RAW' })).toBe(true)
    expect(await isSignatureValid({ ...request, message: mu, messageType: 'EXTERNAL_MU' })).toBe(true)
  })

  it('does not verify with any part of it changed', async () => {
    for (let at = 0; at < signature.length; at += 241) {
      const changed = Buffer.from(signature)
      changed[at] = changed[at]! ^ 1
      const wrong = { ...request, signature: changed, message, messageType: 'RAW' }
      expect(await isSignatureValid(wrong), `byte ${at}`).toBe(false)
    }
  })
})

describe('the vector of ML-KEM-512', () => {
  const { seed, encapsulationKey, ciphertext, sharedSecret } = read('ml-kem-512') as Record<
    'seed' | 'encapsulationKey' | 'ciphertext' | 'sharedSecret',
    Buffer
  >
  // RFC 9935 section 6: OneAsymmetricKey with the seed, [0] IMPLICIT OCTET STRING
  const seedForm = Buffer.concat([Buffer.from('3054020100300b060960864801650304040104428040', 'hex'), seed])

  it('opens to its secret with the OpenSSL of Node', () => {
    const privateKey = createPrivateKey({ key: seedForm, format: 'der', type: 'pkcs8' })
    expect(decapsulate(privateKey, ciphertext)).toEqual(sharedSecret)
    const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
    expect(spki).toEqual(latticePublicKey(setOf('ML_KEM_512'), encapsulationKey))
  })

  it('names a key to which secrets are encapsulated', () => {
    const privateKey = createPrivateKey({ key: seedForm, format: 'der', type: 'pkcs8' })
    const spki = latticePublicKey(setOf('ML_KEM_512'), encapsulationKey)
    const made = encapsulate(createPublicKey({ key: spki, format: 'der', type: 'spki' }))
    expect(decapsulate(privateKey, made.ciphertext)).toEqual(made.sharedKey)
  })
})
