/**
 * The serve role: dispatch of requests to pool jobs. Purposes are enforced here by a default-deny table before any job runs. Plaintext is
 * wiped as soon as the module has it. Any number of requests may be under way.
 */

import type { Measurement } from '../examination.ts'
import type { RequestFrame } from '../frame-codec.ts'
import { algorithms, constructions, type OperationName, type Response, specs } from '../frames.ts'
import type { CipherAlgorithm, KeySpec, MacAlgorithm, Purpose, SignAlgorithm, WrapAlgorithm } from '../port.ts'
import { jobOp, type Plan } from './addon.ts'
import { Cipher } from './cipher.ts'
import { type Created, Creating } from './creating.ts'
import { DataKeyPairs } from './data-key-pairs.ts'
import { destroySessionObject, summarise } from './describe.ts'
import type { Facts } from './facts.ts'
import { refusal } from './failure.ts'
import { objectName } from './handles.ts'
import type { Call, Jobs } from './jobs.ts'
import { measureToken } from './measure.ts'
import { asBuffer, type KeyRef, type Objects, readKey } from './objects.ts'
import { destroyAll, probeToken } from './probe.ts'
import { type ProbeParts, ProbeRun } from './probe-run.ts'
import { Signing } from './signing.ts'
import { Unwrapping } from './unwrapping.ts'
import { sealingMessagesMax, WorkingKeys } from './working-keys.ts'

/** What a key of each purpose may be asked for. MATERIAL_ID, which reveals nothing, is open to all. */
const allowed: Readonly<Record<Purpose, ReadonlySet<OperationName>>> = {
  kms: new Set([
    'sign',
    'verify',
    'encrypt',
    'decrypt',
    'encryptThenVerify',
    'mac',
    'derive',
    'decapsulate',
    'wrap',
    'unwrap',
    'sealRandom',
  ] as const),
  tls: new Set(['sign', 'verify'] as const),
  xks: new Set(['encrypt', 'decrypt', 'encryptThenVerify', 'encryptDigested'] as const),
  system: new Set(['sign', 'verify', 'encrypt', 'decrypt', 'encryptThenVerify', 'mac', 'wrap', 'unwrap'] as const),
}

export interface Served {
  readonly jobs: Jobs
  readonly objects: Objects
  readonly facts: Facts
  readonly allowsThroughMemory: boolean
  /** Takes how a request that was just answered can be answered from now on without coming here. */
  readonly remember?: (frame: RequestFrame, plan: Plan) => void
}

const randomBytesMax = 64 * 1024

export class Serving {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #facts: Facts
  readonly #workingKeys: WorkingKeys
  readonly #cipher: Cipher
  readonly #signing: Signing
  readonly #creating: Creating
  readonly #pairs: DataKeyPairs
  readonly #remember: Served['remember']

  constructor({ jobs, objects, facts, allowsThroughMemory, remember }: Served) {
    this.#remember = remember
    const { workingKeys: opening, sealingKeys: sealing } = jobs.profile
    this.#jobs = jobs
    this.#objects = objects
    this.#facts = facts
    this.#workingKeys = new WorkingKeys(jobs, objects, facts.derivation, {
      opening,
      sealing,
      messages: sealingMessagesMax,
    })
    this.#cipher = new Cipher(jobs, objects, this.#workingKeys, facts)
    this.#signing = new Signing(jobs, objects, this.#workingKeys)
    this.#creating = new Creating(jobs, objects, facts, new Unwrapping(jobs, objects, facts, allowsThroughMemory))
    this.#pairs = new DataKeyPairs(jobs, objects, facts, this.#creating)
  }

  /** @throws CallFailure */
  async handle(call: Call, frame: RequestFrame): Promise<Response<OperationName>> {
    switch (frame.operation) {
      case 'sign': {
        const { fields } = frame
        const key = this.#key(fields, 'sign')
        const algorithm = algorithmOf(fields.algorithm) as SignAlgorithm
        const signature = await this.#signing.sign(call, key, algorithm, fields.input)
        this.#plan(frame, this.#signing.planSign(key, algorithm))
        return { signature }
      }
      case 'verify': {
        const { fields } = frame
        const key = this.#key(fields, 'verify')
        const algorithm = algorithmOf(fields.algorithm) as SignAlgorithm
        const isValid = await this.#signing.verify(call, key, algorithm, fields.input, fields.signature)
        return { valid: isValid ? 1 : 0 }
      }
      case 'encrypt':
      case 'encryptThenVerify': {
        const { fields, operation } = frame
        try {
          const key = this.#key(fields, operation)
          const algorithm = cipherOf(fields.algorithm)
          const op = operation === 'encrypt' ? jobOp.encrypt : jobOp.encryptVerify
          return { output: await this.#cipher.encrypt(call, key, algorithm, fields, op) }
        } finally {
          fields.data.fill(0)
        }
      }
      case 'encryptDigested': {
        const { fields } = frame
        try {
          return await this.#cipher.encryptDigested(call, this.#key(fields, 'encryptDigested'), fields)
        } finally {
          fields.data.fill(0)
        }
      }
      case 'decrypt': {
        const { fields } = frame
        const key = this.#key(fields, 'decrypt')
        return { output: await this.#cipher.decrypt(call, key, cipherOf(fields.algorithm), fields) }
      }
      case 'mac': {
        const { fields } = frame
        const algorithm = algorithmOf(fields.algorithm) as MacAlgorithm
        const key = algorithm === 'MATERIAL_ID' ? readKey(fields) : this.#key(fields, 'mac')
        const mac = await this.#signing.mac(call, key, algorithm, fields.message)
        this.#plan(frame, this.#signing.planMac(key, algorithm))
        return { mac }
      }
      case 'derive': {
        const key = this.#key(frame.fields, 'derive')
        return { secret: await this.#signing.derive(call, key, frame.fields.peerPublicKey) }
      }
      case 'decapsulate': {
        const key = this.#key(frame.fields, 'decapsulate')
        return { secret: await this.#signing.decapsulate(call, key, frame.fields.ciphertext) }
      }
      case 'random': {
        const { count } = frame.fields
        return { output: count === 0 ? Buffer.alloc(0) : await this.#random(call, count) }
      }
      case 'sealRandom': {
        const { prefix, context, count } = frame.fields
        const key = this.#key(frame.fields, 'sealRandom')
        const plaintext = await this.#random(call, count)
        try {
          const input = { prefix, context, data: plaintext }
          return { plaintext, sealed: await this.#cipher.encrypt(call, key, 'SEAL', input, jobOp.encrypt) }
        } catch (error) {
          plaintext.fill(0)
          throw error
        }
      }
      case 'wrap': {
        const { fields } = frame
        const target = readKey({
          purpose: fields.targetPurpose,
          spec: fields.targetSpec,
          construction: fields.targetConstruction,
          session: fields.targetSession,
          objectId: fields.targetObjectId,
          label: fields.targetLabel,
        })
        const algorithm = algorithmOf(fields.algorithm) as WrapAlgorithm
        return { wrapped: await this.#creating.wrap(call, this.#key(fields, 'wrap'), target, algorithm) }
      }
      case 'unwrap': {
        const { fields } = frame
        const algorithm = algorithmOf(fields.algorithm) as WrapAlgorithm
        const key = this.#key(fields, 'unwrap')
        const wrapped = asBuffer(fields.wrapped)
        return createdFields(await this.#creating.unwrapSession(call, key, algorithm, wrapped, fields.intent))
      }
      case 'generate':
        return createdFields(await this.#creating.generateSession(call, frame.fields.intent))
      case 'generateDataKeyPair':
        return this.#pairs.generate(call, specOf(frame.fields.spec))
      case 'attributes':
        return { object: await summarise(this.#jobs, this.#objects, call, readKey(frame.fields)) }
      case 'destroy': {
        const key = readKey(frame.fields)
        if (key.session === 0) throw refusal('KeyUsageInvalid', 'token objects are destroyed by manage', 'B')
        this.#workingKeys.forget((name) => name === key.name)
        return { destroyed: await destroySessionObject(this.#jobs, this.#objects, call, key) }
      }
      case 'forget': {
        const { objectId, label } = frame.fields
        this.#forget(asBuffer(objectId), label)
        return {}
      }
      case 'probe':
        return { capabilities: await probeToken(this.#parts(), call) }
      case 'measure':
        return { measurement: await this.#measure(call, frame.fields.durationMs) }
      case 'ping': {
        await this.#jobs.need(call, jobOp.random, { outMax: 8 })
        const { size: workingKeys } = this.#workingKeys
        const { size: sessionObjects } = this.#objects.session
        return { state: { ...this.#jobs.depth(), workingKeys, sessionObjects, handles: this.#objects.handles.size } }
      }
      default:
        throw refusal('Unsupported', `${frame.operation} is not for this role`, 'B')
    }
  }

  async #measure(call: Call, durationMs: number): Promise<Measurement> {
    const run = new ProbeRun(this.#parts(), call)
    try {
      return await measureToken(run, this.#jobs.depth().sessions, durationMs)
    } finally {
      await destroyAll(run)
    }
  }

  async #random(call: Call, count: number): Promise<Buffer> {
    if (count > randomBytesMax) throw refusal('ValidationFailed', 'too many random bytes')
    const { output } = await this.#jobs.need(call, jobOp.random, { outMax: count })
    if (output?.length !== count) throw refusal('HsmFailure', 'random bytes of an unexpected length', 'B')
    return output
  }

  #parts(): ProbeParts {
    return {
      jobs: this.#jobs,
      objects: this.#objects,
      facts: this.#facts,
      creating: this.#creating,
      pairs: this.#pairs,
      signing: this.#signing,
      cipher: this.#cipher,
      workingKeys: this.#workingKeys,
    }
  }

  #plan(frame: RequestFrame, plan: Plan | undefined): void {
    if (plan !== undefined) this.#remember?.(frame, plan)
  }

  #key(fields: Parameters<typeof readKey>[0], operation: OperationName): KeyRef {
    const key = readKey(fields)
    if (!allowed[key.purpose].has(operation)) {
      throw refusal('KeyUsageInvalid', `keys of purpose ${key.purpose} do not ${operation}`)
    }
    return key
  }

  #forget(objectId: Buffer, label: string): void {
    this.#objects.handles.forget(objectId, label)
    const bare = objectName('secret', objectId, '')
    this.#workingKeys.forget((name) => name === bare || name.startsWith(`${bare}\u0000`))
  }
}

export function createdFields(created: Created) {
  const { session, construction, publicKey } = created
  return { session, construction: constructions.indexOf(construction), publicKey }
}

export function algorithmOf(code: number): (typeof algorithms)[number] {
  const algorithm = algorithms[code]
  if (algorithm === undefined) throw refusal('ValidationFailed', 'unknown code of algorithm', 'B')
  return algorithm
}

function specOf(code: number): KeySpec {
  const spec = specs[code]
  if (spec === undefined) throw refusal('ValidationFailed', 'unknown code of spec', 'B')
  return spec
}

function cipherOf(code: number): CipherAlgorithm {
  const algorithm = algorithmOf(code)
  if (
    algorithm === 'SEAL' ||
    algorithm === 'AES_GCM' ||
    algorithm === 'RSAES_OAEP_SHA_1' ||
    algorithm === 'RSAES_OAEP_SHA_256'
  ) {
    return algorithm
  }
  throw refusal('ValidationFailed', 'no cipher of that code', 'B')
}
