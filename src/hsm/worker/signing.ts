/**
 * Signatures, MACs, the material id, ECDH and decapsulation: one registry entry each, one job each. Inputs are checked for length here, since modules
 * differ in what they accept.
 */
import { createHash } from 'node:crypto'
import type { MacAlgorithm, SignAlgorithm } from '../port.ts'
import { jobOp, type Plan } from './addon.ts'
import { CKD, CKK, CKM } from './cryptoki.ts'
import { refusal } from './failure.ts'
import type { Call, JobResult, Jobs } from './jobs.ts'
import { sharedSecretBytes } from './key-shapes.ts'
import {
  ecdsaInputBytesMax,
  ecdsaInputBytesMin,
  macEntries,
  saltedHashes,
  signatureBytes,
  signEntries,
} from './mechanisms.ts'
import { asBuffer, type KeyRef, type Objects } from './objects.ts'
import { encodeParams, encodeTemplate } from './pack.ts'
import { parsePeerPoint } from './spki.ts'
import { agreedSecretTemplate } from './templates.ts'
import type { WorkingKeys } from './working-keys.ts'

/** KMS messages end at 4096 bytes; Ed25519 of the gateway's own documents may be longer. */
const messageBytesMax = 64 * 1024
/** Longer inputs go through the event loop, which holds them where they are. */
const plannedBytesMax = 4096
const materialDomain = Buffer.from('hsmgate material id\0')

export class Signing {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #workingKeys: WorkingKeys

  constructor(jobs: Jobs, objects: Objects, workingKeys: WorkingKeys) {
    this.#jobs = jobs
    this.#objects = objects
    this.#workingKeys = workingKeys
  }

  async sign(call: Call, key: KeyRef, algorithm: SignAlgorithm, input: Uint8Array): Promise<Buffer> {
    const { mechanism, params, message } = prepare(key, algorithm, input)
    const bound = signatureBytes(key.spec)
    const result = await this.#objects.run(call, key, jobOp.sign, mechanism, params, message, null, bound)
    const signature = this.#output(call, jobOp.sign, result)
    if (signature.length !== bound) throw refusal('HsmFailure', 'signature of an unexpected length', 'B')
    return signature
  }

  /** How `sign` answers, for the pipe; `undefined` where more than the input differs from call to call, or the object is not known. */
  planSign(key: KeyRef, algorithm: SignAlgorithm): Plan | undefined {
    const entry = signEntries[algorithm]
    if (entry === undefined || algorithm === 'RSASSA_PSS_SALTED' || !entry.specs.includes(key.spec)) return undefined
    const { mechanism, params, inputBytes, prefix = null } = entry
    const [inputMin, inputMax] =
      inputBytes > 0
        ? [inputBytes, inputBytes]
        : mechanism === CKM.ecdsa
          ? [ecdsaInputBytesMin, ecdsaInputBytesMax]
          : [0, plannedBytesMax]
    const bytes = signatureBytes(key.spec)
    return this.#plan(key, { mechanism, params, prefix, inputMin, inputMax, outputMin: bytes, outputMax: bytes })
  }

  /** The same of `mac`. */
  planMac(key: KeyRef, algorithm: MacAlgorithm): Plan | undefined {
    const entry = algorithm === 'MATERIAL_ID' ? undefined : macEntries[algorithm]
    if (entry === undefined || !entry.specs.includes(key.spec)) return undefined
    const { mechanism, macBytes } = entry
    const lengths = { inputMin: 0, inputMax: plannedBytesMax, outputMin: macBytes, outputMax: macBytes }
    return this.#plan(key, { mechanism, params: null, prefix: null, ...lengths })
  }

  #plan(key: KeyRef, plan: Omit<Plan, 'op' | 'key'>): Plan | undefined {
    // a session object may be destroyed under its reference
    const object = key.session === 0 ? this.#objects.known(key) : undefined
    return object === undefined ? undefined : { op: jobOp.sign, key: object.handle, ...plan }
  }

  /** With the public object of the same id; without one the caller verifies with the public key that it has. */
  async verify(
    call: Call,
    key: KeyRef,
    algorithm: SignAlgorithm,
    input: Uint8Array,
    signature: Uint8Array,
  ): Promise<boolean> {
    if (key.session !== 0) throw refusal('Unsupported', 'session objects keep no public half')
    const { mechanism, params, message } = prepare(key, algorithm, input)
    const shape = { ...key.shape, objectClass: 'public' as const }
    const object = await this.#objects.handles.find(call, shape.objectClass, key.objectId, key.label)
    if (object.purpose !== key.purpose && object.purpose !== 'foreign') {
      throw refusal('KeyUsageInvalid', `object of purpose ${object.purpose} asked for as ${key.purpose}`)
    }
    const job = { mechanism, params, key: object.handle, input: message, aux: signature }
    const { rv } = await this.#jobs.attempt(call, jobOp.verify, job)
    if (signatureIsBad.has(rv)) return false
    if (rv !== 0) throw this.#jobs.failure(call, jobOp.verify, rv)
    return true
  }

  async mac(call: Call, key: KeyRef, algorithm: MacAlgorithm, message: Uint8Array): Promise<Buffer> {
    if (message.length > messageBytesMax) throw refusal('ValidationFailed', 'message too long')
    if (algorithm === 'MATERIAL_ID') return this.#materialId(call, key, asBuffer(message))
    const entry = macEntries[algorithm]
    if (entry === undefined || !entry.specs.includes(key.spec)) {
      throw refusal('KeyUsageInvalid', `${algorithm} is not for ${key.spec}`)
    }
    const { mechanism, macBytes } = entry
    const result = await this.#objects.run(call, key, jobOp.sign, mechanism, null, message, null, macBytes)
    const mac = this.#output(call, jobOp.sign, result)
    if (mac.length !== macBytes) throw refusal('HsmFailure', 'MAC of an unexpected length', 'B')
    return mac
  }

  /** The peer's point is checked before the module sees it: OpenSSL refuses points off the curve. */
  async derive(call: Call, key: KeyRef, peerPublicKey: Uint8Array): Promise<Buffer> {
    const { curve } = key.shape
    if (curve === undefined) throw refusal('KeyUsageInvalid', `${key.spec} agrees on no keys`)
    const point = parsePeerPoint(peerPublicKey, curve)
    if (point === undefined) throw refusal('ValidationFailed', 'peer public key is no point of the curve')
    const params = encodeParams({ kind: 'ecdh', kdf: CKD.null, publicData: point })
    const aux = encodeTemplate(agreedSecretTemplate(curve.fieldBytes))
    const op = jobOp.deriveValue
    const result = await this.#objects.run(call, key, op, CKM.ecdh1Derive, params, null, aux, curve.fieldBytes)
    const secret = this.#output(call, op, result)
    if (secret.length !== curve.fieldBytes) {
      secret.fill(0)
      throw refusal('HsmFailure', 'shared secret of an unexpected length', 'B')
    }
    return secret
  }

  /** ML-KEM: a ciphertext of the right length always gives a secret, that of another key or a changed one a random one (FIPS 203 section 6.3). */
  async decapsulate(call: Call, key: KeyRef, ciphertext: Uint8Array): Promise<Buffer> {
    const { parameters, keyType } = key.shape
    if (parameters === undefined || keyType !== CKK.mlKem) {
      throw refusal('KeyUsageInvalid', `${key.spec} decapsulates nothing`)
    }
    if (ciphertext.length !== parameters.outputBytes) {
      throw refusal('CiphertextInvalid', 'encapsulated secret of a wrong length')
    }
    const aux = encodeTemplate(agreedSecretTemplate(sharedSecretBytes))
    const op = jobOp.decapsulate
    const result = await this.#objects.run(call, key, op, CKM.mlKem, null, ciphertext, aux, sharedSecretBytes)
    const secret = this.#output(call, op, result)
    if (secret.length !== sharedSecretBytes) {
      secret.fill(0)
      throw refusal('HsmFailure', 'shared secret of an unexpected length', 'B')
    }
    return secret
  }

  /**
   * SHA-256 over the domain and a pseudo-random function of the message under the key: an HMAC under a secret derived from the reserved
   * purpose (derived keys), the AES of the message's hash marked with that purpose's byte (direct keys), or the key's own HMAC of the
   * domain-separated message. The outer hash keeps the function's raw values inside, so an id helps with nothing else.
   */
  async #materialId(call: Call, key: KeyRef, message: Buffer): Promise<Buffer> {
    const bound = Buffer.concat([materialDomain, message])
    let raw: Buffer
    if (key.construction === 'derived') {
      raw = await this.#workingKeys.materialMac(call, key, bound)
    } else if (key.construction === 'direct') {
      raw = await this.#encryptMarked(call, key, createHash('sha256').update(bound).digest())
    } else {
      const entry = Object.values(macEntries).find(({ specs }) => specs.includes(key.spec))
      if (entry === undefined) throw refusal('KeyUsageInvalid', `${key.spec} has no material id`)
      const { mechanism, macBytes } = entry
      const result = await this.#objects.run(call, key, jobOp.sign, mechanism, null, bound, null, macBytes)
      raw = this.#output(call, jobOp.sign, result)
    }
    const id = createHash('sha256').update(materialDomain).update(raw).digest()
    raw.fill(0)
    return id
  }

  /** Two AES blocks, each purpose byte 0x02, index, 14 bytes of the hash: GCM's counter blocks of the same key end in a small counter. */
  async #encryptMarked(call: Call, key: KeyRef, hash: Buffer): Promise<Buffer> {
    const blocks = Buffer.concat([
      Buffer.from([0x02, 0]),
      hash.subarray(0, 14),
      Buffer.from([0x02, 1]),
      hash.subarray(14, 28),
    ])
    const { length } = blocks
    const result = await this.#objects.run(call, key, jobOp.encrypt, CKM.aesEcb, null, blocks, null, length)
    if (result.rv !== keyFunctionNotPermitted) return this.#output(call, jobOp.encrypt, result)
    // an adopted key that only decrypts: the inverse permutation serves as well
    const inverse = await this.#objects.run(call, key, jobOp.decrypt, CKM.aesEcb, null, blocks, null, length)
    return this.#output(call, jobOp.decrypt, inverse)
  }

  #output(
    call: Call,
    op:
      | typeof jobOp.sign
      | typeof jobOp.encrypt
      | typeof jobOp.decrypt
      | typeof jobOp.deriveValue
      | typeof jobOp.decapsulate,
    result: JobResult,
  ) {
    if (result.rv !== 0 || result.output === null) throw this.#jobs.failure(call, op, result.rv)
    return result.output
  }
}

const keyFunctionNotPermitted = 0x68
const signatureIsBad: ReadonlySet<number> = new Set([0xc0, 0xc1])

/** The salt is at most what the modulus leaves (RFC 8017, section 9.1.1). */
function readSalted(key: KeyRef, input: Uint8Array) {
  const [hash = 0, high = 0, low = 0] = input
  const found = saltedHashes[hash]
  const saltLen = high * 256 + low
  if (found === undefined || input.length !== 3 + found.bytes)
    throw refusal('ValidationFailed', 'digest of a wrong length')
  if (saltLen > signatureBytes(key.spec) - found.bytes - 2) throw refusal('ValidationFailed', 'salt too long')
  const { hashAlg, mgf } = found
  return { params: encodeParams({ kind: 'pss', hashAlg, mgf, saltLen }), message: input.subarray(3) }
}

function prepare(key: KeyRef, algorithm: SignAlgorithm, input: Uint8Array) {
  const entry = signEntries[algorithm]
  if (entry === undefined) throw refusal('Unsupported', `no mechanism for ${algorithm}`)
  if (!entry.specs.includes(key.spec)) throw refusal('KeyUsageInvalid', `${algorithm} is not for ${key.spec}`)
  if (algorithm === 'RSASSA_PSS_SALTED') return { mechanism: entry.mechanism, ...readSalted(key, input) }
  const { mechanism, params, inputBytes, prefix } = entry
  const isEcdsa = mechanism === CKM.ecdsa
  const { length } = input
  if (inputBytes !== 0 && length !== inputBytes) throw refusal('ValidationFailed', 'digest of a wrong length')
  if (isEcdsa && (length < ecdsaInputBytesMin || length > ecdsaInputBytesMax)) {
    throw refusal('ValidationFailed', 'digest of a wrong length')
  }
  if (length > messageBytesMax) throw refusal('ValidationFailed', 'message too long')
  return { mechanism, params, message: prefix === undefined ? input : Buffer.concat([prefix, input]) }
}
