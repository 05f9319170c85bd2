/**
 * Making objects through the pool: session keys and pairs, wrapping out, unwrapping in. Token objects are made by the manage worker,
 * which shares only the unwrapping. What leaves by wrapping is an exportable session object under a key that wraps, nothing else.
 */
import type { Construction, GenerateIntent, WrapAlgorithm } from '../port.ts'
import { jobOp } from './addon.ts'
import { CKA, CKK, CKM } from './cryptoki.ts'
import { constructionOfFacts, type Facts } from './facts.ts'
import { refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import { type KeyShape, keyShapes } from './key-shapes.ts'
import { oaepEntries } from './mechanisms.ts'
import type { KeyRef, Objects } from './objects.ts'
import { encodeTemplate } from './pack.ts'
import { readPublicKey } from './public-keys.ts'
import {
  constructionOf,
  privateKeyTemplate,
  publicKeyTemplate,
  secretKeyTemplate,
  sessionSecretTemplate,
  unwrapTemplate,
} from './templates.ts'

export interface Created {
  /** 0 for a token object. */
  readonly session: number
  readonly construction: Construction
  readonly publicKey: Buffer
}

const noPublicKey = Buffer.alloc(0)
const wrappedBytesMax = 16 * 1024
const objectIdBytes = 16

/** @throws CallFailure for an intent that no key may come of. */
export function readIntent(value: unknown): { intent: GenerateIntent; shape: KeyShape } {
  const intent = value as GenerateIntent
  const shape = keyShapes[intent?.spec]
  if (shape === undefined) throw refusal('Unsupported', 'no PKCS#11 mapping for this key spec')
  if (!shape.usages.includes(intent.usage))
    throw refusal('KeyUsageInvalid', `${intent.spec} is not for ${intent.usage}`)
  const { objectId, keyId, number, purpose, residence } = intent
  const isSound =
    objectId instanceof Uint8Array &&
    objectId.length === objectIdBytes &&
    /^[\w-]{1,64}$/.test(keyId) &&
    Number.isSafeInteger(number) &&
    number >= 0 &&
    (purpose === 'kms' || purpose === 'tls' || purpose === 'xks' || purpose === 'system') &&
    (residence === 'token' || residence === 'session')
  if (!isSound) throw refusal('ValidationFailed', 'malformed intent', 'B')
  if (intent.usage === 'WRAP_UNWRAP' && purpose !== 'system' && residence === 'token') {
    throw refusal('KeyUsageInvalid', 'only system keys wrap')
  }
  if (intent.exportable === true && residence === 'token') {
    throw refusal('ValidationFailed', 'a token object is never exportable', 'B')
  }
  return { intent, shape }
}

export class Creating {
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

  /** `granted`: usages of a private key other than the intent's, for a probe key that does everything. */
  async generateSession(call: Call, value: unknown, granted?: readonly number[]): Promise<Created> {
    const { intent, shape } = readIntent(value)
    if (intent.residence !== 'session') throw refusal('ValidationFailed', 'token objects are made by manage', 'B')
    const construction = constructionOf(intent, constructionOfFacts(this.#facts))
    if (shape.objectClass === 'secret') {
      const aux = encodeTemplate(secretKeyTemplate(intent, shape, construction))
      const { handle } = await this.#jobs.need(call, jobOp.generateKey, { mechanism: shape.generation, aux })
      return { session: this.#add(intent, shape, construction, handle), construction, publicKey: noPublicKey }
    }
    const pair = await this.#jobs.need(call, jobOp.generateKeyPair, {
      mechanism: shape.generation,
      input: encodeTemplate(publicKeyTemplate(intent, shape)),
      aux: encodeTemplate(privateKeyTemplate(intent, shape, granted)),
    })
    try {
      const publicKey = await readPublicKey(this.#jobs, call, pair.handle, shape)
      if (publicKey === undefined) throw refusal('HsmFailure', 'the module shows no public key', 'B')
      return { session: this.#add(intent, shape, construction, pair.handle2), construction, publicKey }
    } catch (error) {
      this.#jobs.discard(pair.handle2)
      throw error
    } finally {
      this.#jobs.discard(pair.handle)
    }
  }

  async wrap(call: Call, key: KeyRef, target: KeyRef, algorithm: WrapAlgorithm): Promise<Buffer> {
    if (algorithm !== 'AES_KWP') throw refusal('Unsupported', `${algorithm} wraps under a public key`)
    this.#checkWrappingKey(key)
    if (target.session === 0) throw refusal('KeyUsageInvalid', 'token objects are not wrapped out')
    if (!this.#objects.session.get(target.session).exportable) {
      throw refusal('KeyUsageInvalid', 'the object is not exportable')
    }
    const mechanism = this.#kwp()
    const wrapped = await this.#objects.find(call, target)
    let wrapping = await this.#objects.find(call, key)
    const job = { mechanism, key2: wrapped.handle, outMax: wrappedBytesMax }
    let result = await this.#jobs.attempt(call, jobOp.wrap, { ...job, key: wrapping.handle })
    const again = result.rv === 0 ? undefined : await this.#objects.findAgain(call, key, wrapping, result.rv)
    if (again !== undefined) {
      wrapping = again
      result = await this.#jobs.attempt(call, jobOp.wrap, { ...job, key: wrapping.handle })
    }
    if (result.rv !== 0 || result.output === null) throw this.#jobs.failure(call, jobOp.wrap, result.rv)
    return result.output
  }

  async unwrapSession(call: Call, key: KeyRef, algorithm: WrapAlgorithm, wrapped: Buffer, value: unknown) {
    const { intent, shape } = readIntent(value)
    if (intent.residence !== 'session') throw refusal('ValidationFailed', 'token objects are made by manage', 'B')
    const construction = constructionOf(intent, constructionOfFacts(this.#facts))
    const handle = await this.unwrap(call, key, algorithm, wrapped, intent, shape, construction)
    const publicKey = await this.#publicKeyOf(call, handle, shape)
    return { session: this.#add(intent, shape, construction, handle), construction, publicKey }
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
    this.#checkWrappingKey(key)
    const template = encodeTemplate(unwrapTemplate(intent, shape, construction))
    switch (algorithm) {
      case 'AES_KWP':
        if (key.spec !== 'SYMMETRIC_DEFAULT') throw refusal('KeyUsageInvalid', `${key.spec} does not unwrap AES_KWP`)
        return this.#unwrapUnder(call, key, this.#kwp(), null, wrapped, template)
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

  /** What an unwrapped private key shows of its public half: RSA always, EC on few modules; empty when nothing. */
  async #publicKeyOf(call: Call, handle: bigint, shape: KeyShape): Promise<Buffer> {
    if (shape.objectClass === 'secret') return noPublicKey
    return (await readPublicKey(this.#jobs, call, handle, shape)) ?? noPublicKey
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
    const mechanism = this.#kwp()
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

  #checkWrappingKey(key: KeyRef): void {
    if (key.session !== 0) {
      if (!this.#objects.session.get(key.session).wraps) throw refusal('KeyUsageInvalid', 'not a wrapping key')
    } else if (key.purpose !== 'system') {
      throw refusal('KeyUsageInvalid', `a key of purpose ${key.purpose} wraps nothing`)
    }
  }

  #kwp(): number {
    const { kwpMechanism } = this.#facts
    if (kwpMechanism === undefined) throw refusal('Unsupported', 'AES-KWP is not proven for this token')
    return kwpMechanism
  }

  #add(intent: GenerateIntent, shape: KeyShape, construction: Construction, handle: bigint): number {
    const wraps = intent.usage === 'WRAP_UNWRAP'
    const { purpose, spec } = intent
    const exportable = intent.exportable === true
    const { keyType } = shape
    return this.#objects.session.add({
      handle,
      keyType,
      purpose,
      spec,
      construction,
      exportable,
      unwraps: wraps,
      wraps,
    })
  }
}

const lacksParameters: ReadonlySet<number> = new Set([0x07, 0x54, 0x70, 0x71])

function modulusBytes(key: KeyRef): number {
  const { modulusBits } = key.shape
  if (modulusBits === undefined) throw refusal('KeyUsageInvalid', `${key.spec} does not unwrap RSA`)
  return modulusBits / 8
}
