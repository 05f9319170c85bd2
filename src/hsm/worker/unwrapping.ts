/**
 * Unwrapping: AES-KWP (RFC 5649), RSAES-OAEP and RSA_AES_KEY_WRAP, into session objects on serve and token objects on manage. The key stays
 * in the module; the one way that passes through memory needs permission. All that is wrong with what was wrapped is `CiphertextInvalid`.
 */
import type { Construction, GenerateIntent, WrapAlgorithm } from '../port.ts'
import { jobOp } from './addon.ts'
import { CKA, CKK, CKM } from './cryptoki.ts'
import { describeObject } from './describe.ts'
import type { Facts } from './facts.ts'
import { refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import type { KeyShape } from './key-shapes.ts'
import { lacksParameters, oaepEntries } from './mechanisms.ts'
import { asBuffer, type KeyRef, type Objects } from './objects.ts'
import { encodeTemplate } from './pack.ts'
import { sessionSecretTemplate, unwrapTemplate } from './templates.ts'

const noPublicKey = Buffer.alloc(0)
export const wrappedBytesMax = 16 * 1024

export class Unwrapping {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #facts: Facts
  readonly #allowsThroughMemory: boolean

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
    if (shape.objectClass === 'secret') await this.#checkLength(call, key, algorithm, wrapped, shape)
    return this.#open(call, key, algorithm, wrapped, encodeTemplate(unwrapTemplate(intent, shape, construction)))
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
   * wrapped a key of another kind. @throws CallFailure `CiphertextInvalid` then
   */
  async publicKeyOf(call: Call, handle: bigint, intent: GenerateIntent, shape: KeyShape): Promise<Buffer> {
    if (shape.objectClass === 'secret') return noPublicKey
    const summary = await describeObject(this.#jobs, call, handle)
    if (summary?.spec !== intent.spec) throw refusal('CiphertextInvalid', 'the wrapped key is of another kind')
    return summary.publicKey === null ? noPublicKey : asBuffer(summary.publicKey)
  }

  /**
   * Modules take secrets of any length and then show none, so an import is opened once more as an exportable session object: AES must
   * work with it, and AES-KWP of it must be as long as RFC 5649 says. That leaves HMAC keys exact to eight bytes.
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
    const wrongLength = () => refusal('CiphertextInvalid', 'the wrapped key has a wrong length')
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
      }
    } finally {
      this.#jobs.discard(copy)
      if (kek !== 0n) this.#jobs.discard(kek)
    }
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
    if (algorithm === 'RSAES_OAEP_SHA_1' || this.#facts.oaepSha256 === 'native') {
      return this.#unwrapUnder(call, key, CKM.rsaPkcsOaep, params, wrapped, template)
    }
    const result = await this.#objects.run(call, key, jobOp.unwrap, CKM.rsaPkcsOaep, params, wrapped, template, 0)
    if (result.rv === 0) return result.handle
    if (!lacksParameters.has(result.rv)) throw this.#jobs.failure(call, jobOp.unwrap, result.rv)
    return this.#unwrapThroughMemory(call, key, wrapped, template)
  }

  /** Raw RSA, decoding in the addon, C_CreateObject: the wrapped key's bytes pass through this process, hence only when allowed. */
  async #unwrapThroughMemory(call: Call, key: KeyRef, wrapped: Buffer, template: Buffer): Promise<bigint> {
    if (!this.#allowsThroughMemory) {
      throw refusal('Unsupported', 'the module cannot unwrap OAEP-SHA-256 itself (allowImportThroughMemory is off)')
    }
    const object = await this.#objects.find(call, key)
    const { hashAlg } = oaepEntries.RSAES_OAEP_SHA_256
    const decrypt = { mechanism: hashAlg, key: object.handle, input: wrapped, outMax: modulusBytes(key) }
    const { output } = await this.#jobs.need(call, jobOp.oaepDecrypt, decrypt)
    const value = output as Buffer
    const withValue = Buffer.concat([template, encodeTemplate([[CKA.value, value]])])
    value.fill(0)
    try {
      return (await this.#jobs.need(call, jobOp.createObject, { aux: withValue })).handle
    } finally {
      withValue.fill(0)
    }
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
    const aesTemplate = encodeTemplate(
      sessionSecretTemplate(CKK.aes, 32, [CKA.unwrap]).filter(([type]) => type !== CKA.valueLen),
    )
    const aes = await this.#unwrapOaep(call, key, algorithm, wrapped.subarray(0, first), aesTemplate)
    try {
      const job = { mechanism, key: aes, input: wrapped.subarray(first), aux: template }
      return (await this.#jobs.need(call, jobOp.unwrap, job)).handle
    } finally {
      this.#jobs.discard(aes)
    }
  }
}

/** Only system keys wrap and unwrap, and session objects that were made for it. @throws CallFailure `KeyUsageInvalid` */
export function checkWrappingKey(key: KeyRef, objects: Objects): void {
  if (key.session !== 0) {
    if (!objects.session.get(key.session).wraps) throw refusal('KeyUsageInvalid', 'not a wrapping key')
  } else if (key.purpose !== 'system') {
    throw refusal('KeyUsageInvalid', `a key of purpose ${key.purpose} wraps nothing`)
  }
}

/** @throws CallFailure `Unsupported` */
export function kwpMechanism(facts: Facts): number {
  const { kwpMechanism: mechanism } = facts
  if (mechanism === undefined) throw refusal('Unsupported', 'AES-KWP is not proven for this token')
  return mechanism
}

function modulusBytes(key: KeyRef): number {
  const { modulusBits } = key.shape
  if (modulusBits === undefined) throw refusal('KeyUsageInvalid', `${key.spec} does not unwrap RSA`)
  return modulusBits / 8
}
