/**
 * Object ids to key handles of this process: filled by one enumeration at start, a miss is looked up once for all who wait, a handle
 * that the module no longer knows is looked up once more. Handles never leave the worker. Single event loop, no locks. Whoever keeps a
 * handle elsewhere learns of every change.
 */
import { jobOp } from './addon.ts'
import { CKA, CKO } from './cryptoki.ts'
import { refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import {
  decodeAttributes,
  decodeHandles,
  decodeUlong,
  encodeAttributeTypes,
  encodeTemplate,
  type Template,
} from './pack.ts'
import { type LabelPurpose, purposeOfLabel } from './templates.ts'

export type KeyClass = 'private' | 'secret' | 'public'

export const classNumbers: Readonly<Record<KeyClass, number>> = {
  private: CKO.privateKey,
  secret: CKO.secretKey,
  public: CKO.publicKey,
}

/** A token object as found. A new one replaces it when the handle proves stale; whoever holds the old one just fails once. */
export interface TokenObject {
  readonly objectClass: KeyClass
  readonly handle: bigint
  readonly keyType: number
  readonly objectId: Buffer
  readonly label: string
  /** What the label says the object is for. */
  readonly purpose: LabelPurpose
  /** CKA_UNWRAP: a key that opens wrapped keys decrypts nothing else. */
  readonly unwraps: boolean
}

const absentMs = 1000
const absentMax = 1024
const foundMax = 8
/** Handles asked of one enumeration (8 bytes each). */
const enumerationMax = 65_536
/** Attribute reads in flight during the enumeration. */
const readsInFlight = 256
const attributeBytesMax = 4096

const attributeTypes = encodeAttributeTypes([CKA.class, CKA.keyType, CKA.id, CKA.label, CKA.unwrap])

/** Two objects of one class share an id: only the label tells them apart. */
const ambiguous = Symbol('ambiguous')
const prefixes: Readonly<Record<KeyClass, string>> = { private: 'p', secret: 's', public: 'u' }

/** Cache name of an object; ids and labels may hold any bytes, so the id's length is part of it. */
export function objectName(objectClass: KeyClass, objectId: Buffer, label: string): string {
  const id = objectId.toString('latin1')
  return label === '' ? prefixes[objectClass] + id : `${prefixes[objectClass]}${id}\u0000${id.length}\u0000${label}`
}

export class HandleCache {
  readonly #jobs: Jobs
  readonly #changed: () => void
  readonly #objects = new Map<string, TokenObject | typeof ambiguous>()
  readonly #finding = new Map<string, Promise<TokenObject>>()
  readonly #absentUntilMs = new Map<string, number>()
  /** Counts what was forgotten; a look-up that began before is not kept. */
  #epoch = 0

  constructor(jobs: Jobs, changed: () => void = () => {}) {
    this.#jobs = jobs
    this.#changed = changed
  }

  /** Reads all private and secret keys of the token. Answers how many there are. */
  async load(call: Call): Promise<number> {
    let count = 0
    for (const objectClass of ['private', 'secret'] as const) {
      const template: Template = [
        [CKA.class, classNumbers[objectClass]],
        [CKA.token, true],
      ]
      const found = await this.#find(call, template, enumerationMax)
      for (const object of found) this.#keep(object)
      count += found.length
    }
    return count
  }

  /** From memory alone: the hot path. */
  cached(name: string): TokenObject | undefined {
    const object = this.#objects.get(name)
    return object === ambiguous ? undefined : object
  }

  /** @throws CallFailure `KeyUnavailable` when there is no such object, or more than one. */
  async find(call: Call, objectClass: KeyClass, objectId: Buffer, label: string): Promise<TokenObject> {
    const name = objectName(objectClass, objectId, label)
    for (;;) {
      const known = this.#objects.get(name)
      if (known === ambiguous) throw severalObjects()
      if (known !== undefined) return known
      const absentUntilMs = this.#absentUntilMs.get(name)
      if (absentUntilMs !== undefined) {
        if (performance.now() < absentUntilMs) throw absent()
        this.#absentUntilMs.delete(name)
      }
      const running = this.#finding.get(name)
      if (running === undefined) break
      // somebody else's look-up may fail for reasons of its own, such as a shorter deadline
      await running.catch(() => {})
    }
    const finding = this.#findOne(call, name, objectClass, Buffer.from(objectId), label)
    this.#finding.set(name, finding)
    try {
      return await finding
    } finally {
      if (this.#finding.get(name) === finding) this.#finding.delete(name)
    }
  }

  /** Looks a stale object up again, whatever the cache says of it. */
  async refind(call: Call, stale: TokenObject, label: string): Promise<TokenObject> {
    const name = objectName(stale.objectClass, stale.objectId, label)
    const current = this.cached(name)
    if (current !== undefined && current.handle !== stale.handle) return current
    this.#objects.delete(name)
    this.#changed()
    return this.find(call, stale.objectClass, stale.objectId, label)
  }

  /** Drops every name of the object, and what is known about its absence. An empty label drops all objects of the id. */
  forget(objectId: Buffer, label: string): void {
    this.#epoch++
    this.#changed()
    for (const objectClass of ['private', 'secret', 'public'] as const) {
      const bare = objectName(objectClass, objectId, '')
      const object = this.#objects.get(bare)
      for (const map of [this.#objects, this.#absentUntilMs, this.#finding]) {
        map.delete(bare)
        if (label !== '') map.delete(objectName(objectClass, objectId, label))
        if (object !== undefined && object !== ambiguous) map.delete(objectName(objectClass, objectId, object.label))
      }
      if (object === ambiguous) this.#forgetNamesakes(objectClass, objectId)
    }
  }

  #forgetNamesakes(objectClass: KeyClass, objectId: Buffer): void {
    for (const [name, object] of this.#objects) {
      if (object === ambiguous || object.objectClass !== objectClass) continue
      if (object.objectId.equals(objectId)) this.#objects.delete(name)
    }
  }

  get size(): number {
    return this.#objects.size
  }

  async #findOne(
    call: Call,
    name: string,
    objectClass: KeyClass,
    objectId: Buffer,
    label: string,
  ): Promise<TokenObject> {
    const epoch = this.#epoch
    const template: (readonly [number, number | boolean | Buffer])[] = [
      [CKA.class, classNumbers[objectClass]],
      [CKA.token, true],
    ]
    // some modules give an object without an id no CKA_ID, others an empty one
    if (objectId.length > 0) template.push([CKA.id, objectId])
    if (label !== '') template.push([CKA.label, Buffer.from(label)])
    const found = (await this.#find(call, template, foundMax)).filter((object) => object.objectId.equals(objectId))
    const [object] = found
    if (object === undefined) {
      if (this.#absentUntilMs.size >= absentMax) this.#absentUntilMs.clear()
      if (epoch === this.#epoch) this.#absentUntilMs.set(name, performance.now() + absentMs)
      throw absent()
    }
    if (found.length > 1) throw severalObjects()
    if (epoch === this.#epoch) {
      this.#keep(object)
      this.#objects.set(name, object)
    }
    return object
  }

  async #find(call: Call, template: Template, max: number): Promise<TokenObject[]> {
    const aux = encodeTemplate(template)
    const { output } = await this.#jobs.need(call, jobOp.find, { aux, outMax: max * 8 })
    const handles = output === null ? [] : decodeHandles(output)
    const objects: TokenObject[] = []
    for (let at = 0; at < handles.length; at += readsInFlight) {
      const part = handles.slice(at, at + readsInFlight)
      for (const object of await Promise.all(part.map((handle) => this.#read(call, handle)))) {
        if (object !== undefined) objects.push(object)
      }
    }
    return objects
  }

  /** `undefined` for an object that vanished meanwhile, or that is no key. */
  async #read(call: Call, handle: bigint): Promise<TokenObject | undefined> {
    const { rv, output } = await this.#jobs.attempt(call, jobOp.getAttributes, {
      key: handle,
      aux: attributeTypes,
      outMax: attributeBytesMax,
    })
    if (output === null) {
      if (rv === 0 || this.#jobs.profile.vanished.includes(rv)) return undefined
      throw this.#jobs.failure(call, jobOp.getAttributes, rv)
    }
    const attributes = decodeAttributes(output)
    const classNumber = ulong(attributes.get(CKA.class))
    const keyType = ulong(attributes.get(CKA.keyType))
    const objectClass = keyClasses[classNumber ?? -1]
    if (objectClass === undefined || keyType === undefined) return undefined
    const label = attributes.get(CKA.label)?.toString('utf8') ?? ''
    return {
      objectClass,
      handle,
      keyType,
      objectId: Buffer.from(attributes.get(CKA.id) ?? []),
      label,
      purpose: purposeOfLabel(label),
      unwraps: attributes.get(CKA.unwrap)?.[0] === 1,
    }
  }

  #keep(object: TokenObject): void {
    this.#changed()
    const bare = objectName(object.objectClass, object.objectId, '')
    const other = this.#objects.get(bare)
    const isOther = other !== undefined && (other === ambiguous || other.handle !== object.handle)
    this.#objects.set(bare, isOther ? ambiguous : object)
    if (object.label !== '') this.#objects.set(objectName(object.objectClass, object.objectId, object.label), object)
  }
}

const keyClasses: Readonly<Record<number, KeyClass>> = {
  [CKO.privateKey]: 'private',
  [CKO.secretKey]: 'secret',
  [CKO.publicKey]: 'public',
}

function absent(): Error {
  return refusal('KeyUnavailable', 'the token has no such object', 'H')
}

function severalObjects(): Error {
  return refusal('KeyUnavailable', 'several objects have this id; the label must tell')
}

/** A CK_ULONG attribute as a number; `undefined` when absent or unavailable. */
export function ulong(value: Buffer | null | undefined): number | undefined {
  if (value?.length !== 8) return undefined
  const number = decodeUlong(value)
  return number > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : Number(number)
}
