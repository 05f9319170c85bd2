/**
 * The manage role: token objects. One request at a time, since modules race between creating, destroying and finding; graphene does these,
 * attributes are read and wrapped keys opened through the pool. A new key is read back, and destroyed again unless it is what was asked.
 *
 * Creation is not idempotent: the caller's intent comes first, and after an unknown outcome `attributes` by object id tells.
 */
import { X509Certificate } from 'node:crypto'
import type { RequestFrame } from '../frame-codec.ts'
import type { OperationName, Response } from '../frames.ts'
import type {
  AdoptableObject,
  AdoptRequest,
  Construction,
  GenerateIntent,
  ObjectSummary,
  WrapAlgorithm,
} from '../port.ts'
import { jobOp } from './addon.ts'
import { type Created, readIntent, readUnwrapIntent } from './creating.ts'
import { CKA } from './cryptoki.ts'
import { describeObject } from './describe.ts'
import { constructionOfFacts, type Facts } from './facts.ts'
import { CallFailure, refusal, rvFailure } from './failure.ts'
import { GrapheneToken, type ObjectQuery, pkcs11Refusal } from './graphene.ts'
import type { KeyClass } from './handles.ts'
import type { Call, Jobs } from './jobs.ts'
import { type KeyShape, keyShapes } from './key-shapes.ts'
import type { OpenToken } from './login.ts'
import { asBuffer, type KeyRef, type Objects, readKey } from './objects.ts'
import { decodeAttributes, encodeAttributeTypes } from './pack.ts'
import { fitsPublicKey, readPublicKey, writePublicKey } from './public-keys.ts'
import { algorithmOf, createdFields } from './serve.ts'
import {
  constructionOf,
  privateKeyTemplate,
  publicKeyTemplate,
  purposeOfLabel,
  secretKeyTemplate,
} from './templates.ts'
import { Unwrapping } from './unwrapping.ts'

export interface Managed {
  readonly jobs: Jobs
  readonly objects: Objects
  readonly facts: Facts
  readonly allowsThroughMemory: boolean
  readonly modulePath: string
  readonly token: OpenToken
}

/** Descriptions read at a time. */
const readsInFlight = 64
const noPublicKey = Buffer.alloc(0)
const certificateValue = encodeAttributeTypes([CKA.value])
const certificateBytesMax = 16 * 1024

export class Managing {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #facts: Facts
  readonly #unwrapping: Unwrapping
  readonly #token: GrapheneToken
  #last: Promise<unknown> = Promise.resolve()

  constructor({ jobs, objects, facts, allowsThroughMemory, modulePath, token }: Managed) {
    this.#jobs = jobs
    this.#objects = objects
    this.#facts = facts
    this.#unwrapping = new Unwrapping(jobs, objects, facts, allowsThroughMemory)
    this.#token = new GrapheneToken(modulePath, token.slot)
  }

  /** Waits for its turn. @throws CallFailure */
  handle(call: Call, frame: RequestFrame): Promise<Response<OperationName>> {
    const turn = this.#last.then(() => this.#handle(call, frame))
    this.#last = turn.catch(() => {})
    return turn
  }

  close(): void {
    this.#token.close()
  }

  async #handle(call: Call, frame: RequestFrame): Promise<Response<OperationName>> {
    if (performance.now() > call.endsAtMs) throw refusal('DeadlineExceeded', 'budget spent while waiting', '-')
    switch (frame.operation) {
      case 'generate':
        return createdFields(await this.#generate(call, frame.fields.intent))
      case 'unwrap': {
        const { fields } = frame
        const algorithm = algorithmOf(fields.algorithm) as WrapAlgorithm
        const wrapped = asBuffer(fields.wrapped)
        return createdFields(await this.#unwrap(call, readKey(fields), algorithm, wrapped, fields.intent))
      }
      case 'enumerate':
        return { objects: await this.#enumerate(call) }
      case 'attributes':
        return { object: await this.#attributes(call, readKey(frame.fields)) }
      case 'destroy':
        return { destroyed: await this.#destroy(call, readKey(frame.fields)) }
      case 'adopt':
        return { object: await this.#adopt(call, frame.fields.request) }
      case 'forget':
        this.#objects.handles.forget(asBuffer(frame.fields.objectId), frame.fields.label)
        return {}
      case 'ping':
        await this.#jobs.need(call, jobOp.random, { outMax: 8 })
        return { state: this.#jobs.depth() }
      default:
        throw refusal('Unsupported', `${frame.operation} is not for this role`, 'B')
    }
  }

  async #generate(call: Call, value: unknown): Promise<Created> {
    const { intent, shape } = readTokenIntent(value)
    const construction = constructionOf(intent, constructionOfFacts(this.#facts))
    if (intent.spec === 'SYMMETRIC_DEFAULT' && intent.usage === 'ENCRYPT_DECRYPT' && construction === 'none') {
      throw refusal('Unsupported', 'AES-GCM is not proven for this token')
    }
    this.#refuseKnownId(call, intent, shape)
    try {
      return await this.#generateOnce(call, intent, shape, construction)
    } catch (error) {
      const rv = error instanceof CallFailure ? error.failure.rv : 0
      if (!this.#jobs.profile.keygenRetry.includes(rv)) throw error
    }
    // the id was free before, so whatever carries it now is what the failed attempt left behind
    for (const handle of this.#findAll(call, shape.objectClass, intent.objectId)) {
      this.#ask(call, () => this.#token.destroy(handle))
    }
    return this.#generateOnce(call, intent, shape, construction)
  }

  async #generateOnce(
    call: Call,
    intent: GenerateIntent,
    shape: KeyShape,
    construction: Construction,
  ): Promise<Created> {
    if (shape.objectClass === 'secret') {
      const template = secretKeyTemplate(intent, shape, construction)
      const handle = this.#ask(call, () => this.#token.generateKey(shape.generation, withoutClass(template)))
      await this.#keepIf(call, handle, () => this.#readBack(call, handle))
      return { session: 0, construction, publicKey: noPublicKey }
    }
    // the public half is read out and gone: the catalog keeps it, and tokens count objects
    const publicTemplate = withoutClass(publicKeyTemplate(intent, shape))
    const privateTemplate = withoutClass(privateKeyTemplate(intent, shape))
    const { publicHandle, privateHandle } = this.#ask(call, () =>
      this.#token.generateKeyPair(shape.generation, publicTemplate, privateTemplate),
    )
    try {
      const publicKey = await this.#keepIf(call, privateHandle, async () => {
        const spki = await readPublicKey(this.#jobs, call, publicHandle, shape)
        if (spki === undefined) throw refusal('HsmFailure', 'the module shows no public key', 'B')
        await this.#readBack(call, privateHandle)
        await writePublicKey(this.#jobs, call, privateHandle, spki)
        return spki
      })
      return { session: 0, construction, publicKey }
    } finally {
      this.#ask(call, () => this.#token.destroy(publicHandle))
    }
  }

  /** A new object that does not come through what follows its making is destroyed: nobody will ever ask for it. */
  async #keepIf<T>(call: Call, handle: bigint, follow: () => Promise<T>): Promise<T> {
    try {
      return await follow()
    } catch (error) {
      this.#ask(call, () => this.#token.destroy(handle))
      throw error
    }
  }

  async #unwrap(call: Call, key: KeyRef, algorithm: WrapAlgorithm, wrapped: Buffer, value: unknown): Promise<Created> {
    const { intent, shape } = readTokenIntent(value, readUnwrapIntent)
    const construction = constructionOf(intent, constructionOfFacts(this.#facts))
    this.#refuseKnownId(call, intent, shape)
    const handle = await this.#unwrapping.unwrap(call, key, algorithm, wrapped, intent, shape, construction)
    const publicKey = await this.#keepIf(call, handle, async () => {
      await this.#readBack(call, handle)
      return this.#unwrapping.publicKeyOf(call, handle, intent, shape)
    })
    return { session: 0, construction, publicKey }
  }

  /** Some modules take a template and make something weaker of it. */
  async #readBack(call: Call, handle: bigint): Promise<void> {
    const summary = await describeObject(this.#jobs, call, handle)
    if (summary?.sensitive && summary.isPrivate && !summary.extractable) return
    throw refusal('HsmFailure', 'the module made a key that could leave it; destroyed', 'B')
  }

  #refuseKnownId(call: Call, intent: GenerateIntent, shape: KeyShape): void {
    if (this.#findAll(call, shape.objectClass, intent.objectId).length > 0) {
      throw refusal('AlreadyExists', 'an object of this id exists')
    }
  }

  async #enumerate(call: Call): Promise<ObjectSummary[]> {
    const summaries: ObjectSummary[] = []
    for (const objectClass of ['private', 'secret', 'public'] as const) {
      const handles = this.#ask(call, () => this.#token.find({ objectClass }))
      for (let at = 0; at < handles.length; at += readsInFlight) {
        const part = handles.slice(at, at + readsInFlight)
        const read = await Promise.all(part.map((handle) => describeObject(this.#jobs, call, handle)))
        summaries.push(...read.filter((summary) => summary !== undefined))
      }
    }
    const publicKeys = new Map<string, Uint8Array>()
    for (const { objectClass, objectId, publicKey } of summaries) {
      if (objectClass === 'public' && publicKey !== null) publicKeys.set(asBuffer(objectId).toString('hex'), publicKey)
    }
    return summaries.map((summary) => {
      if (summary.objectClass !== 'private' || summary.publicKey !== null) return summary
      return { ...summary, publicKey: publicKeys.get(asBuffer(summary.objectId).toString('hex')) ?? null }
    })
  }

  async #attributes(call: Call, key: KeyRef): Promise<ObjectSummary | null> {
    if (key.session !== 0) throw refusal('ValidationFailed', 'session objects live in serve workers', 'B')
    const { objectId, label, shape } = key
    const named = await this.#describeAll(call, { objectClass: shape.objectClass, objectId, label })
    const found = named.filter((summary) => objectId.equals(summary.objectId))
    if (found.length > 1) throw refusal('KeyUnavailable', 'several objects have this id; the label must tell')
    const [summary] = found
    return summary === undefined ? null : this.#withPublicKey(call, summary)
  }

  async #destroy(call: Call, key: KeyRef): Promise<number> {
    if (key.session !== 0) throw refusal('ValidationFailed', 'session objects live in serve workers', 'B')
    const { objectId, label, shape, purpose } = key
    if (objectId.length === 0)
      throw refusal('ValidationFailed', 'an object without an id is not destroyed by label', 'B')
    const classes: readonly KeyClass[] = shape.objectClass === 'private' ? ['private', 'public'] : ['secret']
    const doomed: bigint[] = []
    for (const objectClass of classes) {
      for (const handle of this.#ask(call, () => this.#token.find({ objectClass, objectId, label }))) {
        const summary = await describeObject(this.#jobs, call, handle)
        if (summary === undefined || !objectId.equals(summary.objectId)) continue
        const labelled = purposeOfLabel(summary.label)
        if (labelled !== purpose && (labelled !== 'foreign' || purpose === 'system')) {
          throw refusal('KeyUsageInvalid', `object of purpose ${labelled} asked for as ${purpose}`)
        }
        doomed.push(handle)
      }
    }
    this.#objects.handles.forget(objectId, label)
    let destroyed = 0
    for (const handle of doomed) if (this.#destroyed(call, handle)) destroyed++
    return destroyed
  }

  #destroyed(call: Call, handle: bigint): boolean {
    try {
      this.#ask(call, () => this.#token.destroy(handle))
      return true
    } catch (error) {
      if (error instanceof CallFailure && error.failure.action === 'H') return false
      throw error
    }
  }

  async #adopt(call: Call, value: unknown): Promise<AdoptableObject> {
    const { label, objectId, objectClass } = value as AdoptRequest
    if (label === undefined && objectId === undefined) throw refusal('ValidationFailed', 'label or object id is needed')
    const classes = objectClass === undefined ? (['private', 'secret'] as const) : [objectClass]
    const found: ObjectSummary[] = []
    for (const each of classes) {
      found.push(...(await this.#describeAll(call, { objectClass: each, objectId, label })))
    }
    const [summary] = found
    if (summary === undefined) throw refusal('NotFound', 'the token has no such object')
    if (found.length > 1) throw refusal('ValidationFailed', `${found.length} objects match`)
    const { objectId: id, objectClass: ofClass } = summary
    const namesakes =
      id.length === 0 ? [] : this.#ask(call, () => this.#token.find({ objectClass: ofClass, objectId: id }))
    return { ...(await this.#withPublicKey(call, summary)), needsLabel: namesakes.length !== 1 }
  }

  /** An EC private key seldom shows its point; the public object or the certificate of the same id does, or of the same label without one. */
  async #withPublicKey(call: Call, summary: ObjectSummary): Promise<ObjectSummary> {
    const { objectClass, publicKey, objectId, label, spec } = summary
    const shape = spec === undefined ? undefined : keyShapes[spec]
    if (objectClass !== 'private' || publicKey !== null || shape === undefined) return summary
    if (objectId.length === 0 && label === '') return summary
    const like = objectId.length === 0 ? { label } : { objectId }
    const halves = await this.#describeAll(call, { objectClass: 'public', ...like })
    const half = halves.find((other) => other.publicKey !== null && other.spec === spec)?.publicKey
    return { ...summary, publicKey: half ?? (await this.#certified(call, shape, like)) }
  }

  /** The public key of a certificate; `null` when none fits. */
  async #certified(call: Call, shape: KeyShape, like: Omit<ObjectQuery, 'objectClass'>): Promise<Buffer | null> {
    for (const handle of this.#ask(call, () => this.#token.find({ objectClass: 'certificate', ...like }))) {
      const job = { key: handle, aux: certificateValue, outMax: certificateBytesMax }
      const { output } = await this.#jobs.attempt(call, jobOp.getAttributes, job)
      const spki = output === null ? undefined : certifiedKey(decodeAttributes(output).get(CKA.value))
      if (spki !== undefined && fitsPublicKey(shape, spki)) return spki
    }
    return null
  }

  async #describeAll(call: Call, query: ObjectQuery): Promise<ObjectSummary[]> {
    const handles = this.#ask(call, () => this.#token.find(query))
    const summaries = await Promise.all(handles.map((handle) => describeObject(this.#jobs, call, handle)))
    return summaries.filter((summary) => summary !== undefined)
  }

  #findAll(call: Call, objectClass: KeyClass, objectId: Uint8Array): bigint[] {
    const classes: readonly KeyClass[] = objectClass === 'private' ? ['private', 'public'] : [objectClass]
    return classes.flatMap((each) => this.#ask(call, () => this.#token.find({ objectClass: each, objectId })))
  }

  /** One synchronous call of graphene, timed, its refusal judged. */
  #ask<T>(call: Call, use: () => T): T {
    const startedAtMs = performance.now()
    try {
      return use()
    } catch (error) {
      const refused = pkcs11Refusal(error)
      if (refused === undefined) throw error
      throw rvFailure(refused.rv, refused.call, call.operation, this.#jobs.profile)
    } finally {
      call.hsmMicros += (performance.now() - startedAtMs) * 1000
    }
  }
}

function readTokenIntent(value: unknown, parse = readIntent): { intent: GenerateIntent; shape: KeyShape } {
  const read = parse(value)
  if (read.intent.residence !== 'token') throw refusal('ValidationFailed', 'session objects are made by serve', 'B')
  return read
}

function certifiedKey(certificate: Buffer | null | undefined): Buffer | undefined {
  if (!certificate?.length) return undefined
  try {
    return new X509Certificate(certificate).publicKey.export({ format: 'der', type: 'spki' })
  } catch {
    return undefined // a certificate that cannot be read is none
  }
}

/** graphene adds the class itself. */
function withoutClass<T extends readonly (readonly [number, unknown])[]>(template: T): T {
  return template.filter(([type]) => type !== CKA.class) as unknown as T
}
