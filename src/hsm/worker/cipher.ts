/**
 * Encryption and decryption: SEAL (AES-256-GCM in the construction of the key), AES_GCM (the key itself, for XKS) and RSAES-OAEP.
 *
 * Sealed bytes: u8 saltLen, salt, u8 ivLen, iv, ciphertext, tag of 16. Additional data: prefix, then saltLen .. iv (without an IV that
 * the module makes), then context. IVs are random, 96 bits; AES_GCM also opens what others encrypted under IVs of 128 bits (XKS proxy API).
 * Everything that can be wrong with a ciphertext is one `CiphertextInvalid`.
 */
import { createHash, randomFillSync, timingSafeEqual } from 'node:crypto'
import type { Request } from '../frames.ts'
import type { CipherAlgorithm } from '../port.ts'
import { type JobOp, jobOp, paramKind } from './addon.ts'
import { CKM } from './cryptoki.ts'
import type { Facts } from './facts.ts'
import { CallFailure, refusal } from './failure.ts'
import type { Call, JobResult, Jobs } from './jobs.ts'
import { Oaep } from './oaep.ts'
import { asBuffer, isStale, type KeyRef, type Objects } from './objects.ts'
import { saltBytes, type WorkingKey, type WorkingKeys } from './working-keys.ts'

export const ivBytes = 12
export const tagBytes = 16
/** What AES_GCM opens; new IVs have 12 bytes. */
const gcmIvBytes: readonly number[] = [ivBytes, 16]
/** KMS plaintexts end at 4096 bytes; secrets of the gateway itself may be longer. */
export const plaintextBytesMax = 64 * 1024

type Input = Pick<Request<'encrypt'>, 'prefix' | 'context' | 'data'>
type EncryptOp = typeof jobOp.encrypt | typeof jobOp.encryptVerify

/** A working key dies with the session that made it; while the module closes sessions, the next one may die as well. */
const rederivations = 3

const noBytes = Buffer.alloc(0)
const noSalt = noBytes

/** Random IVs, drawn for many messages at once: one call of the generator costs more than the bytes. */
const ivPool = Buffer.alloc(ivBytes * 512)
let ivPoolAt = ivPool.length

function drawIv(): Buffer {
  if (ivPoolAt === ivPool.length) {
    randomFillSync(ivPool)
    ivPoolAt = 0
  }
  const iv = Buffer.from(ivPool.subarray(ivPoolAt, ivPoolAt + ivBytes))
  ivPoolAt += ivBytes
  return iv
}

/** Packed CK_GCM_PARAMS with the additional data of SEAL laid down in one buffer; see paramKind.gcm. */
export function sealParams(
  prefix: Uint8Array,
  salt: Uint8Array | undefined,
  iv: Uint8Array,
  context: Uint8Array,
  ivMode: 'caller' | 'module',
): Buffer {
  const ivInData = ivMode === 'caller' ? 1 + iv.length : 1
  const headBytes = salt === undefined ? 0 : 1 + salt.length + ivInData
  const aadBytes = prefix.length + headBytes + context.length
  const params = Buffer.allocUnsafe(8 + iv.length + aadBytes)
  params[0] = paramKind.gcm
  params[1] = iv.length
  params[2] = tagBytes * 8
  params[3] = ivMode === 'caller' ? 0 : 1
  params.writeUInt32LE(aadBytes, 4)
  params.set(iv, 8)
  let at = 8 + iv.length
  params.set(prefix, at)
  at += prefix.length
  if (salt !== undefined) {
    params[at++] = salt.length
    params.set(salt, at)
    at += salt.length
    params[at++] = iv.length
    if (ivMode === 'caller') {
      params.set(iv, at)
      at += iv.length
    }
  }
  params.set(context, at)
  return params
}

export interface Sealed {
  readonly salt: Buffer
  readonly iv: Buffer
  /** Ciphertext and tag. */
  readonly body: Buffer
}

/** @throws CallFailure `CiphertextInvalid` */
export function parseSealed(sealed: Buffer): Sealed {
  const saltLength = sealed[0]
  if (saltLength !== 0 && saltLength !== saltBytes) throw invalid()
  return { salt: sealed.subarray(1, 1 + saltLength), ...parseIvAndBody(sealed.subarray(1 + saltLength), [ivBytes]) }
}

function parseIvAndBody(bytes: Buffer, lengths: readonly number[]): { iv: Buffer; body: Buffer } {
  const [length = 0] = bytes
  if (!lengths.includes(length) || bytes.length < 1 + length + tagBytes) throw invalid()
  return { iv: bytes.subarray(1, 1 + length), body: bytes.subarray(1 + length) }
}

export class Cipher {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #workingKeys: WorkingKeys
  readonly #facts: Facts
  readonly #oaep: Oaep

  constructor(jobs: Jobs, objects: Objects, workingKeys: WorkingKeys, facts: Facts) {
    this.#jobs = jobs
    this.#objects = objects
    this.#workingKeys = workingKeys
    this.#facts = facts
    this.#oaep = new Oaep(jobs, objects, facts)
  }

  encrypt(call: Call, key: KeyRef, algorithm: CipherAlgorithm, input: Input, op: EncryptOp): Promise<Buffer> {
    if (input.data.length > plaintextBytesMax) throw refusal('ValidationFailed', 'plaintext too long')
    checkUse(key, algorithm)
    if (algorithm === 'SEAL') return this.#seal(call, key, input, op)
    if (algorithm === 'AES_GCM') return this.#gcmEncrypt(call, key, input, op)
    return this.#oaep.encrypt(call, key, algorithm, input.data, op === jobOp.encryptVerify)
  }

  decrypt(call: Call, key: KeyRef, algorithm: CipherAlgorithm, input: Input): Promise<Buffer> {
    checkUse(key, algorithm)
    if (algorithm === 'SEAL') return this.#open(call, key, input)
    if (algorithm === 'AES_GCM') return this.#gcmDecrypt(call, key, input)
    return this.#oaep.decrypt(call, key, algorithm, asBuffer(input.data))
  }

  /**
   * The digest is taken of what the module answered before the decryption that proves it: taken afterwards, it would vouch for a bit that
   * flipped in between (XKS proxy API, "ciphertextDataIntegrityValue").
   */
  async encryptDigested(
    call: Call,
    key: KeyRef,
    { context, digestPrefix, data }: Pick<Request<'encryptDigested'>, 'context' | 'digestPrefix' | 'data'>,
  ): Promise<{ readonly output: Buffer; readonly digest: Buffer }> {
    if (data.length > plaintextBytesMax) throw refusal('ValidationFailed', 'plaintext too long')
    checkUse(key, 'AES_GCM')
    const output = await this.#gcmEncrypt(call, key, { prefix: noBytes, context, data }, jobOp.encrypt)
    const digest = createHash('sha256').update(digestPrefix).update(output.subarray(1)).digest()
    let proof: Buffer
    try {
      proof = await this.#gcmDecrypt(call, key, { prefix: noBytes, context, data: output })
    } catch (error) {
      if (error instanceof CallFailure && error.failure.code === 'CiphertextInvalid') throw unproven()
      throw error
    }
    const isSame = proof.length === data.length && timingSafeEqual(proof, data)
    proof.fill(0)
    if (!isSame) throw unproven()
    return { output, digest }
  }

  async #seal(call: Call, key: KeyRef, input: Input, op: EncryptOp): Promise<Buffer> {
    if (key.construction === 'direct') {
      const iv = this.#iv()
      const params = sealParams(input.prefix, noSalt, iv, input.context, this.#ivMode())
      const result = await this.#objects.run(
        call,
        key,
        op,
        CKM.aesGcm,
        params,
        input.data,
        null,
        this.#bound(input.data),
      )
      return this.#assemble(call, op, result, noSalt, iv)
    }
    for (let left = rederivations; ; left--) {
      const { working, iv, result } = await this.#sealWith(call, key, input, op)
      if (left > 0 && isStale(result.rv)) continue
      return this.#assemble(call, op, result, working.salt, iv)
    }
  }

  async #sealWith(call: Call, key: KeyRef, input: Input, op: EncryptOp) {
    const working = this.#workingKeys.borrowSealing(key) ?? (await this.#workingKeys.deriveSealing(call, key))
    let isGood = false
    try {
      const iv = this.#iv()
      const params = sealParams(input.prefix, working.salt, iv, input.context, this.#ivMode())
      const result = await this.#runWith(call, working, op, params, input.data, this.#bound(input.data))
      isGood = result.rv === 0
      return { working, iv, result }
    } finally {
      this.#workingKeys.putBack(working, isGood)
    }
  }

  /** saltLen, salt, ivLen, iv, ciphertext and tag; the module's IV, if it made one, stands before its ciphertext. */
  #assemble(call: Call, op: EncryptOp, result: JobResult, salt: Buffer, iv: Buffer): Buffer {
    const body = this.#output(call, op, result)
    const hasIv = this.#ivMode() === 'module'
    const sealed = Buffer.allocUnsafe(2 + salt.length + (hasIv ? 0 : iv.length) + body.length)
    sealed[0] = salt.length
    sealed.set(salt, 1)
    let at = 1 + salt.length
    sealed[at++] = iv.length
    if (!hasIv) {
      sealed.set(iv, at)
      at += iv.length
    }
    sealed.set(body, at)
    return sealed
  }

  async #open(call: Call, key: KeyRef, input: Input): Promise<Buffer> {
    const { salt, iv, body } = parseSealed(asBuffer(input.data))
    // an IV that the module made is not part of the additional data, but the tag covers it
    const packed = sealParams(input.prefix, salt, iv, input.context, this.#ivMode())
    packed[3] = 0
    if ((salt.length === 0) !== (key.construction === 'direct')) throw invalid()
    if (key.construction === 'direct') {
      const result = await this.#objects.run(call, key, jobOp.decrypt, CKM.aesGcm, packed, body, null, body.length)
      return this.#output(call, jobOp.decrypt, result)
    }
    for (let left = rederivations; ; left--) {
      const result = await this.#openWith(call, key, salt, packed, body)
      if (left > 0 && isStale(result.rv)) continue
      return this.#output(call, jobOp.decrypt, result)
    }
  }

  async #openWith(call: Call, key: KeyRef, salt: Buffer, params: Buffer, body: Buffer): Promise<JobResult> {
    const working =
      this.#workingKeys.borrowOpening(key, salt) ?? (await this.#workingKeys.deriveOpening(call, key, salt))
    let isGood = false
    try {
      const result = await this.#runWith(call, working, jobOp.decrypt, params, body, body.length)
      isGood = result.rv === 0
      return result
    } finally {
      this.#workingKeys.putBack(working, isGood)
    }
  }

  async #runWith(
    call: Call,
    working: WorkingKey,
    op: JobOp,
    params: Buffer,
    input: Uint8Array,
    outMax: number,
  ): Promise<JobResult> {
    const result = await this.#jobs.run(call, op, CKM.aesGcm, working.handle, 0n, params, input, null, outMax)
    if (result.rv !== 0 && isStale(result.rv)) this.#workingKeys.drop(working)
    return result
  }

  async #gcmEncrypt(call: Call, key: KeyRef, input: Input, op: EncryptOp): Promise<Buffer> {
    const iv = this.#iv()
    const mode = this.#ivMode()
    const params = sealParams(noBytes, undefined, iv, input.context, mode)
    const result = await this.#objects.run(call, key, op, CKM.aesGcm, params, input.data, null, this.#bound(input.data))
    const body = this.#output(call, op, result)
    return Buffer.concat(mode === 'module' ? [Buffer.from([ivBytes]), body] : [Buffer.from([ivBytes]), iv, body])
  }

  async #gcmDecrypt(call: Call, key: KeyRef, input: Input): Promise<Buffer> {
    // whoever wraps keys with AES-GCM gives no additional data; without any, a key that also unwraps would open those
    if (input.context.length === 0) throw invalid()
    const { iv, body } = parseIvAndBody(asBuffer(input.data), gcmIvBytes)
    const params = sealParams(noBytes, undefined, iv, input.context, 'caller')
    const result = await this.#objects.run(call, key, jobOp.decrypt, CKM.aesGcm, params, body, null, body.length)
    return this.#output(call, jobOp.decrypt, result)
  }

  #output(call: Call, op: JobOp, result: JobResult): Buffer {
    if (result.rv !== 0) throw this.#jobs.failure(call, op, result.rv)
    return result.output ?? noBytes
  }

  #ivMode(): 'caller' | 'module' {
    const { gcmIv } = this.#facts
    if (gcmIv === 'none') throw refusal('Unsupported', 'AES-GCM is not proven for this token')
    return gcmIv
  }

  /** The IV to use, or room for the one that the module makes. */
  #iv(): Buffer {
    return this.#ivMode() === 'caller' ? drawIv() : Buffer.alloc(ivBytes)
  }

  #bound(data: Uint8Array): number {
    return data.length + tagBytes + ivBytes
  }
}

function checkUse(key: KeyRef, algorithm: CipherAlgorithm): void {
  const isRsa = key.shape.modulusBits !== undefined
  const isAes = key.spec === 'SYMMETRIC_DEFAULT'
  const fits =
    algorithm === 'SEAL'
      ? isAes && key.construction !== 'none' && (key.purpose === 'kms' || key.purpose === 'system')
      : algorithm === 'AES_GCM'
        ? isAes && key.construction === 'direct' && key.purpose === 'xks'
        : isRsa && (key.purpose === 'kms' || key.purpose === 'system')
  if (!fits) throw refusal('KeyUsageInvalid', `${algorithm} is not for ${key.spec} of purpose ${key.purpose}`)
}

function unproven(): Error {
  return refusal('HsmFailure', 'what the module encrypted does not decrypt to the same', 'S')
}

function invalid(): Error {
  return refusal('CiphertextInvalid', 'not a ciphertext of this form')
}
