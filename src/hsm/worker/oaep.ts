/**
 * RSAES-OAEP (RFC 8017 section 7.1, empty label). Decryption is the module's; where it has no OAEP with SHA-256 the addon decodes what raw
 * RSA gives, in constant time, so that the private key stays inside all the same. Encryption needs only the public key.
 */
import { constants, createPublicKey, publicEncrypt } from 'node:crypto'
import { type JobOp, jobOp } from './addon.ts'
import { CKM } from './cryptoki.ts'
import type { Facts } from './facts.ts'
import { refusal } from './failure.ts'
import type { Call, JobResult, Jobs } from './jobs.ts'
import { lacksParameters, oaepEntries } from './mechanisms.ts'
import type { KeyRef, Objects } from './objects.ts'
import { readPublicKey } from './public-keys.ts'

export type OaepAlgorithm = keyof typeof oaepEntries

export class Oaep {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #facts: Facts

  constructor(jobs: Jobs, objects: Objects, facts: Facts) {
    this.#jobs = jobs
    this.#objects = objects
    this.#facts = facts
  }

  /** A public-key operation: done here with the modulus that the private object shows. */
  async encrypt(
    call: Call,
    key: KeyRef,
    algorithm: OaepAlgorithm,
    data: Uint8Array,
    isVerified: boolean,
  ): Promise<Buffer> {
    const object = await this.#objects.find(call, key)
    const spki = await readPublicKey(this.#jobs, call, object.handle, key.shape)
    if (spki === undefined) throw refusal('Unsupported', 'the token does not show the public key')
    const publicKey = createPublicKey({ key: spki, format: 'der', type: 'spki' })
    const { hash } = oaepEntries[algorithm]
    const hashBytes = hash === 'sha1' ? 20 : 32
    if (data.length > (key.shape.modulusBits as number) / 8 - 2 * hashBytes - 2) {
      throw refusal('ValidationFailed', 'plaintext too long for the key')
    }
    const ciphertext = publicEncrypt(
      { key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: hash },
      data,
    )
    if (isVerified) {
      const back = await this.decrypt(call, key, algorithm, ciphertext)
      const isSame = back.equals(data)
      back.fill(0)
      if (!isSame) throw refusal('HsmFailure', 'the module does not decrypt to what was encrypted', 'D')
    }
    return ciphertext
  }

  async decrypt(call: Call, key: KeyRef, algorithm: OaepAlgorithm, data: Buffer): Promise<Buffer> {
    const modulusBytes = (key.shape.modulusBits as number) / 8
    if (data.length !== modulusBytes) throw refusal('CiphertextInvalid', 'not a ciphertext of this form')
    const { params, hashAlg } = oaepEntries[algorithm]
    const mayBeRaw = algorithm === 'RSAES_OAEP_SHA_256'
    if (!(mayBeRaw && this.#facts.oaepSha256 === 'raw')) {
      const op = jobOp.decrypt
      const result = await this.#objects.run(call, key, op, CKM.rsaPkcsOaep, params, data, null, modulusBytes)
      if (!mayBeRaw || this.#facts.oaepSha256 !== 'unknown' || !lacksParameters.has(result.rv)) {
        if (result.rv === 0 && mayBeRaw) this.#facts.oaepSha256 = 'native'
        return this.#output(call, op, result)
      }
    }
    const op = jobOp.oaepDecrypt
    const result = await this.#objects.run(call, key, op, hashAlg, null, data, null, modulusBytes)
    if (result.rv === 0) this.#facts.oaepSha256 = 'raw'
    return this.#output(call, op, result)
  }

  #output(call: Call, op: JobOp, result: JobResult): Buffer {
    if (result.rv !== 0) throw this.#jobs.failure(call, op, result.rv)
    return result.output ?? Buffer.alloc(0)
  }
}
