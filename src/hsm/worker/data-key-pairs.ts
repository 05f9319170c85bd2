/**
 * Key pairs that are made to be handed out (GenerateDataKeyPair): generated as an exportable session object, wrapped by the module with
 * AES-KWP under a key that this process made for the occasion, and opened here. Nothing else leaves this way: the pair is new, and gone from
 * the module before the answer is.
 */
import { createPrivateKey, createPublicKey, randomBytes, randomUUID } from 'node:crypto'
import type { KeySpec } from '../port.ts'
import { jobOp } from './addon.ts'
import type { Creating } from './creating.ts'
import { CKA, CKK } from './cryptoki.ts'
import type { Facts } from './facts.ts'
import { refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import { keyShapes } from './key-shapes.ts'
import { kwpMechanism } from './kwp.ts'
import type { Objects } from './objects.ts'
import { encodeTemplate } from './pack.ts'
import { ecPrivateKey } from './spki.ts'
import { sessionSecretTemplate } from './templates.ts'
import { wrappedBytesMax } from './unwrapping.ts'
import { openKeyWrap } from './unwrapping-in-memory.ts'

export interface DataKeyPair {
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Buffer
  /** DER PKCS#8, the form that OpenSSL writes. */
  readonly privateKey: Buffer
}

export class DataKeyPairs {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #facts: Facts
  readonly #creating: Creating

  constructor(jobs: Jobs, objects: Objects, facts: Facts, creating: Creating) {
    this.#jobs = jobs
    this.#objects = objects
    this.#facts = facts
    this.#creating = creating
  }

  /** @throws CallFailure `Unsupported` for a spec that is no key pair. */
  async generate(call: Call, spec: KeySpec): Promise<DataKeyPair> {
    const created = await this.#creating.generateSession(call, {
      group: '',
      spec,
      usage: 'SIGN_VERIFY',
      purpose: 'kms',
      objectId: randomBytes(16),
      keyId: randomUUID(),
      number: 0,
      residence: 'session',
      exportable: true,
    })
    const { handle } = this.#objects.session.get(created.session)
    const pkcs8 = await this.#wrapOut(call, handle).finally(() => {
      this.#objects.session.remove(created.session)
      this.#jobs.discard(handle)
    })
    try {
      // Modules differ in the optional fields that they write; everyone gets one form.
      const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
      const publicKey = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
      if (!publicKey.equals(created.publicKey)) throw refusal('HsmFailure', 'the halves of a new pair differ', 'B')
      const exported = privateKey.export({ format: 'der', type: 'pkcs8' })
      return { publicKey, privateKey: withPublicKey(spec, exported, publicKey) }
    } finally {
      pkcs8.fill(0)
    }
  }

  async #wrapOut(call: Call, handle: bigint): Promise<Buffer> {
    const mechanism = kwpMechanism(this.#facts)
    const value = randomBytes(32)
    const template = sessionSecretTemplate(CKK.aes, 32, [CKA.wrap]).filter(([type]) => type !== CKA.valueLen)
    const aux = encodeTemplate([...template, [CKA.value, value]])
    try {
      const kek = (await this.#jobs.need(call, jobOp.createObject, { aux })).handle
      try {
        const job = { mechanism, key: kek, key2: handle, outMax: wrappedBytesMax }
        const { output } = await this.#jobs.need(call, jobOp.wrap, job)
        return openKeyWrap(value, output as Buffer)
      } finally {
        this.#jobs.discard(kek)
      }
    } finally {
      aux.fill(0)
      value.fill(0)
    }
  }
}

/** Adds to the PKCS#8 of an EC key the public key that the module left out; then the scalar is what it ends with. */
function withPublicKey(spec: KeySpec, pkcs8: Buffer, spki: Buffer): Buffer {
  const curve = keyShapes[spec]?.curve
  if (curve === undefined) return pkcs8
  const point = spki.subarray(-(1 + 2 * curve.fieldBytes))
  if (pkcs8.subarray(-point.length).equals(point)) return pkcs8
  const whole = ecPrivateKey(curve, pkcs8.subarray(-curve.fieldBytes), point)
  pkcs8.fill(0)
  return whole
}
