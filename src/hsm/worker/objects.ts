/**
 * From the key that a request names to the object that may serve it: token objects through the handle cache, session objects through
 * the table of this worker. Purpose, key type and use are checked here, whatever the gateway believes.
 */
import { constructions, purposes, type Request, specs } from '../frames.ts'
import type { Construction, KeySpec, Purpose } from '../port.ts'
import { type JobOp, jobOp } from './addon.ts'
import { refusal } from './failure.ts'
import { type HandleCache, objectName, type TokenObject } from './handles.ts'
import type { Call, JobResult, Jobs } from './jobs.ts'
import { fitsShape, type KeyShape, keyShapes } from './key-shapes.ts'

type KeyFields = Pick<Request<'attributes'>, 'purpose' | 'spec' | 'construction' | 'session' | 'objectId' | 'label'>

/** A request's key, read once. */
export interface KeyRef {
  readonly purpose: Purpose
  readonly spec: KeySpec
  readonly shape: KeyShape
  readonly construction: Construction
  /** 0 for a token object. */
  readonly session: number
  readonly objectId: Buffer
  readonly label: string
  /** Name in the caches of this worker. */
  readonly name: string
  /** Name of what is derived from it; empty where nothing is. */
  readonly sealName: string
}

export interface SessionEntry {
  readonly handle: bigint
  readonly keyType: number
  readonly purpose: Purpose
  readonly spec: KeySpec
  readonly construction: Construction
  readonly exportable: boolean
  readonly unwraps: boolean
  /** Made with usage WRAP_UNWRAP. */
  readonly wraps: boolean
}

/** What uses need to know of either kind of object. */
export interface UsableObject {
  readonly handle: bigint
  readonly keyType: number
  readonly unwraps: boolean
}

/** Session objects by reference. References are not reused while the worker lives, so that a late request can't hit another object. */
export class SessionObjects {
  readonly #entries = new Map<number, SessionEntry>()
  #last = 0

  add(entry: SessionEntry): number {
    if (this.#last >= 0xffffffff) throw refusal('KeyUnavailable', 'references of this worker are used up', 'I')
    this.#last++
    this.#entries.set(this.#last, entry)
    return this.#last
  }

  get(reference: number): SessionEntry {
    const entry = this.#entries.get(reference)
    if (entry === undefined) throw refusal('KeyUnavailable', 'the session object is gone', 'H')
    return entry
  }

  /** A second reference to the same object, seen otherwise; the probe spares itself key generations that way. */
  alias(reference: number, changes: Partial<SessionEntry>): number {
    return this.add({ ...this.get(reference), ...changes })
  }

  remove(reference: number): SessionEntry | undefined {
    const entry = this.#entries.get(reference)
    this.#entries.delete(reference)
    return entry
  }

  get size(): number {
    return this.#entries.size
  }
}

const objectIdBytesMax = 1024

/** @throws CallFailure `Unsupported` for a spec that has no shape, `ValidationFailed` for codes out of range. */
export function readKey(fields: KeyFields): KeyRef {
  const purpose = purposes[fields.purpose]
  const spec = specs[fields.spec]
  const construction = constructions[fields.construction]
  if (purpose === undefined || spec === undefined || construction === undefined) {
    throw refusal('ValidationFailed', 'unknown code of purpose, spec or construction', 'B')
  }
  const shape = keyShapes[spec]
  if (shape === undefined) throw refusal('Unsupported', `no PKCS#11 mapping for ${spec}`)
  const { session, label } = fields
  const objectId = asBuffer(fields.objectId)
  if (objectId.length > objectIdBytesMax) throw refusal('ValidationFailed', 'object id too long', 'B')
  const name = session === 0 ? objectName(shape.objectClass, objectId, label) : `#${session}`
  const sealName = construction === 'derived' ? `${purpose} ${name}` : ''
  return { purpose, spec, shape, construction, session, objectId, label, name, sealName }
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export class Objects {
  readonly #jobs: Jobs
  readonly handles: HandleCache
  readonly session = new SessionObjects()

  constructor(jobs: Jobs, handles: HandleCache) {
    this.#jobs = jobs
    this.handles = handles
  }

  /** From memory, or `undefined` when the token must be asked. @throws CallFailure when the object may not serve this key. */
  known(key: KeyRef): UsableObject | undefined {
    if (key.session !== 0) return checkSession(this.session.get(key.session), key)
    const object = this.handles.cached(key.name)
    return object === undefined ? undefined : checkToken(object, key)
  }

  async find(call: Call, key: KeyRef): Promise<UsableObject> {
    const known = this.known(key)
    if (known !== undefined) return known
    return checkToken(await this.handles.find(call, key.shape.objectClass, key.objectId, key.label), key)
  }

  /** Looks again after a code that speaks of a stale handle; `undefined` when that can't help. */
  async findAgain(call: Call, key: KeyRef, stale: UsableObject, rv: number): Promise<UsableObject | undefined> {
    if (key.session !== 0 || !staleCodes.has(rv)) return undefined
    const again = checkToken(await this.handles.refind(call, stale as TokenObject, key.label), key)
    return again.handle === stale.handle && rv === keyTypeInconsistent ? undefined : again
  }

  /** One job on the key's object; once more with a fresh handle when the cached one proved stale. */
  async run(
    call: Call,
    key: KeyRef,
    op: JobOp,
    mechanism: number,
    params: Uint8Array | null,
    input: Uint8Array | null,
    aux: Uint8Array | null,
    outMax: number,
  ): Promise<JobResult> {
    const object = this.known(key) ?? (await this.find(call, key))
    if (op === jobOp.decrypt || op === jobOp.oaepDecrypt) refuseUnwrappingKey(object, key)
    const result = await this.#jobs.run(call, op, mechanism, object.handle, 0n, params, input, aux, outMax)
    if (result.rv === 0 || !staleCodes.has(result.rv)) return result
    const again = await this.findAgain(call, key, object, result.rv)
    if (again === undefined) return result
    return this.#jobs.run(call, op, mechanism, again.handle, 0n, params, input, aux, outMax)
  }
}

const keyTypeInconsistent = 0x63
/** KEY_HANDLE_INVALID, OBJECT_HANDLE_INVALID, (UN)WRAPPING_KEY_HANDLE_INVALID; KEY_TYPE_INCONSISTENT: the handle may have been reused. */
const staleCodes: ReadonlySet<number> = new Set([0x60, 0x82, 0xf0, 0x113, keyTypeInconsistent])

export function isStale(rv: number): boolean {
  return staleCodes.has(rv)
}

/** An adopted object serves the purpose it was registered for, but the gateway's own keys are always of its own making. */
function checkToken(object: TokenObject, key: KeyRef): TokenObject {
  const isAdopted = object.purpose === 'foreign' && key.purpose !== 'system'
  if (object.purpose !== key.purpose && !isAdopted) {
    throw refusal('KeyUsageInvalid', `object of purpose ${object.purpose} asked for as ${key.purpose}`)
  }
  if (!fitsShape(key.shape, object.keyType)) {
    throw refusal('KeyUsageInvalid', `object of key type ${object.keyType} asked for as ${key.spec}`)
  }
  return object
}

function checkSession(entry: SessionEntry, key: KeyRef): SessionEntry {
  if (entry.purpose !== key.purpose || entry.spec !== key.spec) {
    throw refusal('KeyUsageInvalid', `session object of purpose ${entry.purpose} asked for as ${key.purpose}`)
  }
  return entry
}

/**
 * A wrapping key must not be turned into a decryption oracle for what was wrapped to it. At the KMS and XKS doors an AES key is none: it opens
 * AES-GCM with additional data in a form of ours, and nothing else. Other tools' AES keys may do everything, more often than not.
 */
function refuseUnwrappingKey(object: UsableObject, { spec, purpose }: KeyRef): void {
  if (!object.unwraps || (spec === 'SYMMETRIC_DEFAULT' && (purpose === 'kms' || purpose === 'xks'))) return
  throw refusal('KeyUsageInvalid', 'a key that unwraps keys decrypts nothing else')
}
