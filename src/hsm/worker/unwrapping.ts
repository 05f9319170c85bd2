/**
 * Unwrapping: AES-KWP (RFC 5649), RSAES-OAEP and RSA_AES_KEY_WRAP, into session objects on serve and token objects on manage. The key stays
 * in the module; ways that show it to this process (unwrapping-in-memory.ts) need permission. What does not open is `CiphertextInvalid`; what
 * opens and is a key of another kind or length is `KeyMaterialIncorrect`, which tells only those who made it anything.
 */
import type { Construction, GenerateIntent, WrapAlgorithm } from '../port.ts'
import { jobOp } from './addon.ts'
import { CKA, CKK, CKM } from './cryptoki.ts'
import { describeObject } from './describe.ts'
import type { Facts } from './facts.ts'
import { CallFailure, refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import type { KeyShape } from './key-shapes.ts'
import { kwpMechanism } from './kwp.ts'
import { lacksParameters, oaepEntries } from './mechanisms.ts'
import { asBuffer, type KeyRef, type Objects } from './objects.ts'
import { encodeTemplate, type Template } from './pack.ts'
import { sessionSecretTemplate, unwrapTemplate } from './templates.ts'
import { createFromBytes, createObject, openKeyWrap } from './unwrapping-in-memory.ts'

const noPublicKey = Buffer.alloc(0)
export const wrappedBytesMax = 16 * 1024

export class Unwrapping {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #facts: Facts
  readonly #allowsThroughMemory: boolean
  #unwrapsSha256: boolean | undefined

  constructor(jobs: Jobs, objects: Objects, facts: Facts, allowsThroughMemory: boolean) {
    this.#jobs = jobs
    this.#objects = objects
    this.#facts = facts
    this.#allowsThroughMemory = allowsThroughMemory
  }

  /** The unwrapped object's handle; with residence `token` the object is a token object, and the caller's to settle. */
  async unwrap(
    call: Call,
    key: KeyRef,
    algorithm: WrapAlgorithm,
    wrapped: Buffer,
    intent: GenerateIntent,
    shape: KeyShape,
    construction: Construction,
  ): Promise<bigint> {
    if (wrapped.length > wrappedBytesMax) throw refusal('CiphertextInvalid', 'wrapped key too long')
    checkWrappingKey(key, this.#objects)
    const template = unwrapTemplate(intent, shape, construction)
    if (algorithm === 'RSAES_OAEP_SHA_256' && !(await this.#hasOaepSha256(call, key, wrapped))) {
      return this.#openInMemory(call, key, algorithm, wrapped, template, shape)
    }
    if (shape.keyType === CKK.ecEdwards) return this.#openEdwards(call, key, algorithm, wrapped, template, shape)
    if (shape.objectClass === 'secret') await this.#checkLength(call, key, algorithm, wrapped, shape)
    const opened = this.#open(call, key, algorithm, wrapped, encodeTemplate(template))
    return shape.objectClass === 'secret' ? opened : opened.catch((error) => this.#judgePrivateKey(error))
  }

  /** Modules fail in ways of their own over what is no key: that is the caller's doing, not the module's trouble. */
  #judgePrivateKey(error: unknown): never {
    if (error instanceof CallFailure && this.#jobs.profile.badWrappedKey.includes(error.failure.rv)) {
      throw refusal('KeyMaterialIncorrect', 'the module does not take this key')
    }
    throw error
  }

  /**
   * Whether the module unwraps with OAEP-SHA-256. Without it raw RSA gives the decrypted block, which is the imported key itself where that
   * was wrapped directly.
   */
  async #hasOaepSha256(call: Call, key: KeyRef, wrapped: Buffer): Promise<boolean> {
    const { oaepSha256 } = this.#facts
    if (oaepSha256 !== 'unknown') return oaepSha256 !== 'raw'
    if (this.#unwrapsSha256 === undefined) {
      const { params } = oaepEntries.RSAES_OAEP_SHA_256
      const template = encodeTemplate(ephemeralTemplate)
      const block = wrapped.subarray(0, modulusBytes(key))
      const trial = await this.#objects.run(call, key, jobOp.unwrap, CKM.rsaPkcsOaep, params, block, template, 0)
      if (trial.rv === 0) this.#jobs.discard(trial.handle)
      this.#unwrapsSha256 = !lacksParameters.has(trial.rv)
    }
    return this.#unwrapsSha256
  }

  /** Modules that sign with Ed25519 keys can't always unwrap one (SoftHSM 2.6.1 answers CKR_FUNCTION_FAILED). */
  async #openEdwards(
    call: Call,
    key: KeyRef,
    algorithm: WrapAlgorithm,
    wrapped: Buffer,
    template: Template,
    shape: KeyShape,
  ): Promise<bigint> {
    try {
      return await this.#open(call, key, algorithm, wrapped, encodeTemplate(template))
    } catch (error) {
      if (!(error instanceof CallFailure) || !lacksKeyType.has(error.failure.rv) || algorithm === 'AES_KWP') throw error
    }
    return this.#openInMemory(call, key, algorithm, wrapped, template, shape)
  }

  async #open(call: Call, key: KeyRef, algorithm: WrapAlgorithm, wrapped: Buffer, template: Buffer): Promise<bigint> {
    switch (algorithm) {
      case 'AES_KWP':
        if (key.spec !== 'SYMMETRIC_DEFAULT') throw refusal('KeyUsageInvalid', `${key.spec} does not unwrap AES_KWP`)
        return this.#unwrapUnder(call, key, kwpMechanism(this.#facts), null, wrapped, template)
      case 'RSAES_OAEP_SHA_1':
        return this.#unwrapOaep(call, key, 'RSAES_OAEP_SHA_1', wrapped, template)
      case 'RSAES_OAEP_SHA_256':
        return this.#unwrapOaep(call, key, 'RSAES_OAEP_SHA_256', wrapped, template)
      case 'RSA_AES_KEY_WRAP_SHA_1':
        return this.#unwrapTwice(call, key, 'RSAES_OAEP_SHA_1', wrapped, template)
      case 'RSA_AES_KEY_WRAP_SHA_256':
        return this.#unwrapTwice(call, key, 'RSAES_OAEP_SHA_256', wrapped, template)
    }
  }

  /**
   * What an unwrapped private key shows of its public half: RSA always, EC on few modules; empty when nothing. Whoever wrapped it may have
   * wrapped a key of another kind. @throws CallFailure `KeyMaterialIncorrect` then
   */
  async publicKeyOf(call: Call, handle: bigint, intent: GenerateIntent, shape: KeyShape): Promise<Buffer> {
    if (shape.objectClass === 'secret') return noPublicKey
    const summary = await describeObject(this.#jobs, call, handle)
    if (summary?.spec !== intent.spec) throw refusal('KeyMaterialIncorrect', 'the wrapped key is of another kind')
    return summary.publicKey === null ? noPublicKey : asBuffer(summary.publicKey)
  }

  /**
   * Modules take secrets of any length and then show none, so an import is opened once more as an exportable session object: AES must
   * work with it, and AES-KWP of it must be as long as RFC 5649 says, which leaves HMAC keys exact to eight bytes. There the least key length
   * that a module demands for each hash helps (SoftHSM: that of the hash), so that 28 bytes against 29 to 31 is what stays open.
   */
  async #checkLength(
    call: Call,
    key: KeyRef,
    algorithm: WrapAlgorithm,
    wrapped: Buffer,
    shape: KeyShape,
  ): Promise<void> {
    const valueBytes = shape.valueBytes as number
    const expected = 8 + Math.ceil(valueBytes / 8) * 8
    const wrongLength = () => refusal('KeyMaterialIncorrect', 'the wrapped key has a wrong length')
    if (algorithm === 'AES_KWP') {
      if (wrapped.length !== expected) throw wrongLength()
      return
    }
    const mechanism = kwpMechanism(this.#facts)
    const isAes = shape.keyType === CKK.aes
    const usages = isAes ? [CKA.encrypt] : [CKA.sign]
    const trial = sessionSecretTemplate(shape.keyType, valueBytes, usages)
      .filter(([type]) => type !== CKA.valueLen)
      .map(([type, value]) => [type, type === CKA.extractable ? true : value] as const)
    const kekTemplate = sessionSecretTemplate(CKK.aes, 32, [CKA.wrap])
    const copy = await this.#open(call, key, algorithm, wrapped, encodeTemplate(trial))
    let kek = 0n
    try {
      const generation = { mechanism: CKM.aesKeyGen, aux: encodeTemplate(kekTemplate) }
      kek = (await this.#jobs.need(call, jobOp.generateKey, generation)).handle
      const out = await this.#jobs.need(call, jobOp.wrap, { mechanism, key: kek, key2: copy, outMax: wrappedBytesMax })
      if (out.output?.length !== expected) throw wrongLength()
      if (isAes) {
        const block = { mechanism: CKM.aesEcb, key: copy, input: Buffer.alloc(16), outMax: 16 }
        if ((await this.#jobs.attempt(call, jobOp.encrypt, block)).rv !== 0) throw wrongLength()
      } else if (!(await this.#isHmacLength(call, copy, valueBytes))) {
        throw wrongLength()
      }
    } finally {
      this.#jobs.discard(copy)
      if (kek !== 0n) this.#jobs.discard(kek)
    }
  }

  async #isHmacLength(call: Call, key: bigint, valueBytes: number): Promise<boolean> {
    if (await this.#refusesLength(call, hmacMechanisms[valueBytes] as number, key)) return false
    if (valueBytes !== 28) return true
    // 32 bytes and more are enough for SHA-256. Does this module look at all?
    const aux = encodeTemplate(sessionSecretTemplate(CKK.genericSecret, valueBytes, [CKA.sign]))
    const control = (await this.#jobs.need(call, jobOp.generateKey, { mechanism: CKM.genericSecretKeyGen, aux })).handle
    try {
      if (!(await this.#refusesLength(call, CKM.sha256Hmac, control))) return true
    } finally {
      this.#jobs.discard(control)
    }
    return this.#refusesLength(call, CKM.sha256Hmac, key)
  }

  /** Whether the module finds this key too short for the mechanism. */
  async #refusesLength(call: Call, mechanism: number, key: bigint): Promise<boolean> {
    const { rv } = await this.#jobs.attempt(call, jobOp.sign, { mechanism, key, input: Buffer.alloc(1), outMax: 64 })
    if (rv !== 0 && rv !== keySizeRange) throw this.#jobs.failure(call, jobOp.sign, rv)
    return rv === keySizeRange
  }

  async #unwrapUnder(
    call: Call,
    key: KeyRef,
    mechanism: number,
    params: Buffer | null,
    wrapped: Buffer,
    template: Buffer,
  ): Promise<bigint> {
    const result = await this.#objects.run(call, key, jobOp.unwrap, mechanism, params, wrapped, template, 0)
    if (result.rv !== 0) throw this.#jobs.failure(call, jobOp.unwrap, result.rv)
    return result.handle
  }

  async #unwrapOaep(
    call: Call,
    key: KeyRef,
    algorithm: keyof typeof oaepEntries,
    wrapped: Buffer,
    template: Buffer,
  ): Promise<bigint> {
    if (wrapped.length !== modulusBytes(key)) throw refusal('CiphertextInvalid', 'wrapped key of a wrong length')
    const { params } = oaepEntries[algorithm]
    return this.#unwrapUnder(call, key, CKM.rsaPkcsOaep, params, wrapped, template)
  }

  /** The imported key's bytes pass through this process, hence only when allowed. */
  async #openInMemory(
    call: Call,
    key: KeyRef,
    algorithm: WrapAlgorithm,
    wrapped: Buffer,
    template: Template,
    shape: KeyShape,
  ): Promise<bigint> {
    if (!this.#allowsThroughMemory) {
      throw refusal('Unsupported', 'the module would show the imported key (allowImportThroughMemory is off)')
    }
    const isTwoStep = algorithm === 'RSA_AES_KEY_WRAP_SHA_1' || algorithm === 'RSA_AES_KEY_WRAP_SHA_256'
    const oaep = algorithm.endsWith('SHA_1') ? 'RSAES_OAEP_SHA_1' : 'RSAES_OAEP_SHA_256'
    const first = modulusBytes(key)
    if (isTwoStep ? wrapped.length <= first : wrapped.length !== first) {
      throw refusal('CiphertextInvalid', 'wrapped key of a wrong length')
    }
    const block = await this.#decodeOaep(call, key, oaep, wrapped.subarray(0, first))
    const bytes = isTwoStep ? openKeyWrap(block, wrapped.subarray(first)) : block
    return createFromBytes(this.#jobs, this.#facts, call, bytes, template, shape)
  }

  /** Raw RSA in the module, decoding in constant time in the addon. The answer is a secret, the caller's to wipe. */
  async #decodeOaep(call: Call, key: KeyRef, algorithm: keyof typeof oaepEntries, wrapped: Buffer): Promise<Buffer> {
    const object = await this.#objects.find(call, key)
    const { hashAlg } = oaepEntries[algorithm]
    const decrypt = { mechanism: hashAlg, key: object.handle, input: wrapped, outMax: modulusBytes(key) }
    return (await this.#jobs.need(call, jobOp.oaepDecrypt, decrypt)).output as Buffer
  }

  /** RSA_AES_KEY_WRAP (PKCS#11 3.2, 6.1.19) in two steps: OAEP opens a session AES key, which opens the rest with KWP. */
  async #unwrapTwice(
    call: Call,
    key: KeyRef,
    algorithm: keyof typeof oaepEntries,
    wrapped: Buffer,
    template: Buffer,
  ): Promise<bigint> {
    const first = modulusBytes(key)
    if (wrapped.length <= first) throw refusal('CiphertextInvalid', 'wrapped key of a wrong length')
    const mechanism = kwpMechanism(this.#facts)
    const aes = await this.#openEphemeral(call, key, algorithm, wrapped.subarray(0, first))
    try {
      const job = { mechanism, key: aes, input: wrapped.subarray(first), aux: template }
      return (await this.#jobs.need(call, jobOp.unwrap, job)).handle
    } finally {
      this.#jobs.discard(aes)
    }
  }

  /** The AES key that wraps the imported one: made for this import alone, so that it may be seen here, briefly, where it has to be. */
  async #openEphemeral(call: Call, key: KeyRef, algorithm: keyof typeof oaepEntries, wrapped: Buffer): Promise<bigint> {
    if (algorithm === 'RSAES_OAEP_SHA_1' || (await this.#hasOaepSha256(call, key, wrapped))) {
      return this.#unwrapOaep(call, key, algorithm, wrapped, encodeTemplate(ephemeralTemplate))
    }
    const value = await this.#decodeOaep(call, key, algorithm, wrapped)
    if (value.length !== 32) {
      value.fill(0)
      throw refusal('CiphertextInvalid', 'the wrapping AES key is not of 256 bits')
    }
    return createObject(this.#jobs, call, value, ephemeralTemplate)
  }
}

const keySizeRange = 0x62
/** By the length of the key that the API pairs with the hash. */
const hmacMechanisms: Readonly<Record<number, number>> = {
  28: CKM.sha224Hmac,
  32: CKM.sha256Hmac,
  48: CKM.sha384Hmac,
  64: CKM.sha512Hmac,
}

/** The AES key of RSA_AES_KEY_WRAP. */
const ephemeralTemplate = sessionSecretTemplate(CKK.aes, 32, [CKA.unwrap]).filter(([type]) => type !== CKA.valueLen)

/** ATTRIBUTE_TYPE_INVALID, ATTRIBUTE_VALUE_INVALID, FUNCTION_FAILED, WRAPPED_KEY_INVALID, TEMPLATE_INCONSISTENT: no such keys come in wrapped. */
const lacksKeyType: ReadonlySet<number> = new Set([0x12, 0x13, 0x06, 0x110, 0xd1])

/** Only system keys wrap and unwrap, and session objects that were made for it. @throws CallFailure `KeyUsageInvalid` */
export function checkWrappingKey(key: KeyRef, objects: Objects): void {
  if (key.session !== 0) {
    if (!objects.session.get(key.session).wraps) throw refusal('KeyUsageInvalid', 'not a wrapping key')
  } else if (key.purpose !== 'system') {
    throw refusal('KeyUsageInvalid', `a key of purpose ${key.purpose} wraps nothing`)
  }
}

function modulusBytes(key: KeyRef): number {
  const { modulusBits } = key.shape
  if (modulusBits === undefined) throw refusal('KeyUsageInvalid', `${key.spec} does not unwrap RSA`)
  return modulusBits / 8
}
