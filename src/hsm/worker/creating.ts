/**
 * Session objects: generated, unwrapped, and wrapped out. They live in this worker alone; token objects are made by manage. What leaves by wrapping is an exportable session object under a key that wraps, nothing else.
 */
import type { Construction, GenerateIntent, WrapAlgorithm } from '../port.ts'
import { jobOp } from './addon.ts'
import { constructionOfFacts, type Facts } from './facts.ts'
import { refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import { type KeyShape, keyShapes } from './key-shapes.ts'
import { kwpMechanism } from './kwp.ts'
import type { KeyRef, Objects } from './objects.ts'
import { encodeTemplate } from './pack.ts'
import { readPublicKey } from './public-keys.ts'
import { constructionOf, privateKeyTemplate, publicKeyTemplate, secretKeyTemplate } from './templates.ts'
import { checkWrappingKey, type Unwrapping, wrappedBytesMax } from './unwrapping.ts'

export interface Created {
  /** 0 for a token object. */
  readonly session: number
  readonly construction: Construction
  readonly publicKey: Buffer
}

const noPublicKey = Buffer.alloc(0)
const objectIdBytes = 16

/** @throws CallFailure for an intent that no key may come of. */
export function readIntent(value: unknown): { intent: GenerateIntent; shape: KeyShape } {
  const intent = value as GenerateIntent
  const shape = Object.hasOwn(keyShapes, intent?.spec) ? keyShapes[intent.spec] : undefined
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

/**
 * What comes in by unwrapping does not leave again and wraps nothing: else whoever commands the gateway could bring in a wrapping key
 * that it knows, unwrap a stored key as exportable, and read it. @throws CallFailure `KeyUsageInvalid`
 */
export function readUnwrapIntent(value: unknown): { intent: GenerateIntent; shape: KeyShape } {
  const read = readIntent(value)
  if (read.intent.exportable === true) throw refusal('KeyUsageInvalid', 'an unwrapped key is never exportable')
  if (read.intent.usage === 'WRAP_UNWRAP') throw refusal('KeyUsageInvalid', 'an unwrapped key wraps nothing')
  return read
}

export class Creating {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #facts: Facts
  readonly #unwrapping: Unwrapping

  constructor(jobs: Jobs, objects: Objects, facts: Facts, unwrapping: Unwrapping) {
    this.#jobs = jobs
    this.#objects = objects
    this.#facts = facts
    this.#unwrapping = unwrapping
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
    checkWrappingKey(key, this.#objects)
    if (target.session === 0) throw refusal('KeyUsageInvalid', 'token objects are not wrapped out')
    if (!this.#objects.session.get(target.session).exportable) {
      throw refusal('KeyUsageInvalid', 'the object is not exportable')
    }
    const mechanism = kwpMechanism(this.#facts)
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
    const { intent, shape } = readUnwrapIntent(value)
    if (intent.residence !== 'session') throw refusal('ValidationFailed', 'token objects are made by manage', 'B')
    const construction = constructionOf(intent, constructionOfFacts(this.#facts))
    const handle = await this.#unwrapping.unwrap(call, key, algorithm, wrapped, intent, shape, construction)
    try {
      const publicKey = await this.#unwrapping.publicKeyOf(call, handle, intent, shape)
      return { session: this.#add(intent, shape, construction, handle), construction, publicKey }
    } catch (error) {
      this.#jobs.discard(handle)
      throw error
    }
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
