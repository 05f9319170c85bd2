/**
 * Working keys: AES-256 session keys derived from a backing key and a random salt, so that random 96-bit IVs stay far from the 2^32
 * messages that NIST SP 800-38D section 8.3 allows one key. A sealing key serves 2^24 messages, then a new salt is drawn.
 *
 * A salt is the 32 bytes that are encrypted under the backing key: two blocks of purpose byte, block index, 14 random bytes. The
 * purpose byte separates what one backing key is used for; its top bit tells CKM_AES_CBC_ENCRYPT_DATA (zero IV) from ..._ECB_...:
 *
 *   0x01 sealing for kms   0x02 key material id   0x04 sealing for system   0x05 reserved for tls   0x06 reserved for xks
 *
 * Decrypt keeps derived keys, least recently used first out, and only those that have opened a message: made-up salts can't drive good
 * keys out. A key is destroyed when it has left the cache and its last user has put it back. Single event loop, no locks.
 */
import { randomFillSync } from 'node:crypto'
import type { Purpose } from '../port.ts'
import { jobOp } from './addon.ts'
import { CKA, CKK, CKM } from './cryptoki.ts'
import { refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import type { KeyRef, Objects } from './objects.ts'
import { encodeParams, encodeTemplate } from './pack.ts'
import { sessionSecretTemplate } from './templates.ts'

export const saltBytes = 32
const blockBytes = 16
/** Messages under one sealing key of one worker. */
export const sealingMessagesMax = 2 ** 24

export type Derivation = 'ecb' | 'cbc' | 'none'

const cbcFlag = 0x80
const sealingPurpose: Readonly<Partial<Record<Purpose, number>>> = { kms: 0x01, system: 0x04 }
const materialPurpose = 0x02

export interface WorkingKey {
  readonly objectName: string
  /** Purpose and object: a blob of one purpose never finds the key of another. */
  readonly sealName: string
  readonly cacheName: string
  readonly salt: Buffer
  readonly handle: bigint
  users: number
  /** Messages sealed. */
  messages: number
  /** In the cache: not destroyed when the last user puts it back. */
  isKept: boolean
  isDestroyed: boolean
  readonly epoch: number
}

const aesTemplate = encodeTemplate(sessionSecretTemplate(CKK.aes, 32, [CKA.encrypt, CKA.decrypt]))
const materialTemplate = encodeTemplate(sessionSecretTemplate(CKK.genericSecret, 32, [CKA.sign, CKA.verify]))

/** @throws CallFailure `KeyUsageInvalid` for purposes that seal nothing. */
function purposeByte(purpose: Purpose): number {
  const byte = sealingPurpose[purpose]
  if (byte === undefined) throw refusal('KeyUsageInvalid', `keys of purpose ${purpose} seal nothing`)
  return byte
}

function saltOf(purpose: number, derivation: Derivation): Buffer {
  const salt = randomFillSync(Buffer.alloc(saltBytes))
  return markSalt(salt, purpose, derivation)
}

/** The reserved salt of the material id: constant, so that the id is. */
function materialSalt(derivation: Derivation): Buffer {
  return markSalt(Buffer.alloc(saltBytes), materialPurpose, derivation)
}

function markSalt(salt: Buffer, purpose: number, derivation: Derivation): Buffer {
  const byte = derivation === 'cbc' ? purpose | cbcFlag : purpose
  for (let block = 0; block < saltBytes / blockBytes; block++) {
    salt[block * blockBytes] = byte
    salt[block * blockBytes + 1] = block
  }
  return salt
}

/** A salt that this purpose may have drawn, and how it derives; `undefined` for anything else. */
function derivationOf(salt: Uint8Array, purpose: number): Derivation | undefined {
  const byte = salt[0] as number
  if (salt.length !== saltBytes || (byte & ~cbcFlag) !== purpose) return undefined
  if (salt[1] !== 0 || salt[blockBytes] !== byte || salt[blockBytes + 1] !== 1) return undefined
  return (byte & cbcFlag) === 0 ? 'ecb' : 'cbc'
}

export function derivationMechanism(derivation: Derivation): number {
  return derivation === 'ecb' ? CKM.aesEcbEncryptData : CKM.aesCbcEncryptData
}

export function derivationParams(derivation: Derivation, salt: Uint8Array): Buffer {
  if (derivation === 'ecb') return encodeParams({ kind: 'stringData', data: salt })
  return encodeParams({ kind: 'cbcData', iv: Buffer.alloc(blockBytes), data: salt })
}

export interface WorkingKeyLimits {
  /** Keys kept for Decrypt. */
  readonly opening: number
  /** Keys kept for Encrypt. */
  readonly sealing: number
  readonly messages: number
}

export class WorkingKeys {
  readonly #jobs: Jobs
  readonly #objects: Objects
  readonly #derivation: Derivation
  readonly #limits: WorkingKeyLimits
  /** By purpose and backing key. */
  readonly #sealing = new Map<string, WorkingKey>()
  /** By purpose, backing key and salt; in order of last use. */
  readonly #opening = new Map<string, WorkingKey>()
  readonly #deriving = new Map<string, Promise<unknown>>()
  /** Derived, in use, and not proven by a good tag yet. */
  readonly #unproven = new Map<string, WorkingKey>()
  #epoch = 0

  constructor(jobs: Jobs, objects: Objects, derivation: Derivation, limits: WorkingKeyLimits) {
    this.#jobs = jobs
    this.#objects = objects
    this.#derivation = derivation
    this.#limits = limits
  }

  /** The current sealing key, one message of its allowance spent; `undefined` when one must be derived. */
  borrowSealing(key: KeyRef): WorkingKey | undefined {
    const working = this.#sealing.get(key.sealName)
    if (working === undefined || working.messages >= this.#limits.messages) return undefined
    working.messages++
    working.users++
    return working
  }

  async deriveSealing(call: Call, key: KeyRef): Promise<WorkingKey> {
    if (this.#derivation === 'none') throw refusal('Unsupported', 'derivation is not proven for this token')
    const purpose = purposeByte(key.purpose)
    const flight = `sealing ${key.sealName}`
    for (;;) {
      const current = this.borrowSealing(key)
      if (current !== undefined) return current
      const running = this.#deriving.get(flight)
      if (running !== undefined) {
        await running.catch(() => {}) // its failure is not ours: it may have had less time
        continue
      }
      await this.#fly(flight, async () => {
        const working = await this.#derive(call, key, saltOf(purpose, this.#derivation), this.#derivation)
        if (working.epoch === this.#epoch) this.#keepSealing(working)
        else this.#destroy(working)
      })
    }
  }

  /** A key for a message with this salt, from memory; `undefined` when it must be derived. */
  borrowOpening(key: KeyRef, salt: Buffer): WorkingKey | undefined {
    const sealing = this.#sealing.get(key.sealName)
    if (sealing?.salt.equals(salt)) {
      sealing.users++
      return sealing
    }
    const cacheName = key.sealName + salt.toString('latin1')
    const working = this.#opening.get(cacheName)
    if (working === undefined) return undefined
    this.#opening.delete(cacheName)
    this.#opening.set(cacheName, working)
    working.users++
    return working
  }

  /** @throws CallFailure `CiphertextInvalid` for a salt that this purpose never draws. */
  async deriveOpening(call: Call, key: KeyRef, salt: Buffer): Promise<WorkingKey> {
    const derivation = derivationOf(salt, purposeByte(key.purpose))
    if (derivation === undefined) throw refusal('CiphertextInvalid', 'salt of another purpose')
    const cacheName = key.sealName + salt.toString('latin1')
    for (;;) {
      const working = this.#unproven.get(cacheName) ?? this.borrowOpening(key, salt)
      if (working !== undefined) {
        if (this.#unproven.get(cacheName) === working) working.users++
        return working
      }
      const running = this.#deriving.get(cacheName)
      if (running !== undefined) {
        await running.catch(() => {})
        continue
      }
      return this.#fly(cacheName, async () => {
        const derived = await this.#derive(call, key, Buffer.from(salt), derivation)
        // before any waiter looks, and with its first user, lest a waiter that gives up destroys it
        derived.users = 1
        this.#unproven.set(cacheName, derived)
        return derived
      })
    }
  }

  /** `isGood`: the key has opened or sealed a message. */
  putBack(working: WorkingKey, isGood: boolean): void {
    working.users--
    if (isGood && this.#unproven.get(working.cacheName) === working && working.epoch === this.#epoch) {
      this.#unproven.delete(working.cacheName)
      this.#keepOpening(working)
    }
    if (working.users === 0 && !working.isKept) {
      if (this.#unproven.get(working.cacheName) === working) this.#unproven.delete(working.cacheName)
      this.#destroy(working)
    }
  }

  /**
   * The module no longer knows the handle: nobody gets this key again, and nobody destroys it, since the module may have given the same
   * handle to another object. The caller still puts it back.
   */
  drop(working: WorkingKey): void {
    working.isDestroyed = true
    this.#remove(working)
  }

  /** Drops every key derived from these objects; `isOf` judges by cache name. */
  forget(isOf: (objectName: string) => boolean): void {
    this.#epoch++
    for (const working of [...this.#sealing.values(), ...this.#opening.values(), ...this.#unproven.values()]) {
      if (isOf(working.objectName)) this.#evict(working)
    }
  }

  /** Frees object memory of the token (CKR_DEVICE_MEMORY): the least recently used half. */
  shrink(): void {
    let surplus = Math.ceil(this.#opening.size / 2)
    for (const working of this.#opening.values()) {
      if (surplus-- <= 0) break
      this.#evict(working)
    }
  }

  /**
   * HMAC-SHA-256 of `message` under a secret derived from the reserved purpose: deterministic, independent of every sealing key.
   * The secret is destroyed at once.
   */
  async materialMac(call: Call, key: KeyRef, message: Buffer): Promise<Buffer> {
    const derivation = this.#derivation
    if (derivation === 'none') throw refusal('Unsupported', 'derivation is not proven for this token')
    const salt = materialSalt(derivation)
    const derived = await this.#objects.run(
      call,
      key,
      jobOp.derive,
      derivationMechanism(derivation),
      derivationParams(derivation, salt),
      null,
      materialTemplate,
      0,
    )
    if (derived.rv !== 0) throw this.#jobs.failure(call, jobOp.derive, derived.rv)
    try {
      const mac = { mechanism: CKM.sha256Hmac, key: derived.handle, input: message, outMax: 32 }
      const { output } = await this.#jobs.need(call, jobOp.sign, mac)
      return output as Buffer
    } finally {
      this.#jobs.discard(derived.handle)
    }
  }

  get size(): number {
    return this.#sealing.size + this.#opening.size + this.#unproven.size
  }

  async #fly<T>(name: string, derive: () => Promise<T>): Promise<T> {
    const flight = derive()
    this.#deriving.set(name, flight)
    try {
      return await flight
    } finally {
      this.#deriving.delete(name)
    }
  }

  async #derive(call: Call, key: KeyRef, salt: Buffer, derivation: Derivation): Promise<WorkingKey> {
    const epoch = this.#epoch
    const mechanism = derivationMechanism(derivation)
    const params = derivationParams(derivation, salt)
    const { rv, handle } = await this.#objects.run(call, key, jobOp.derive, mechanism, params, null, aesTemplate, 0)
    if (rv !== 0) {
      if (rv === deviceMemory) this.shrink()
      throw this.#jobs.failure(call, jobOp.derive, rv)
    }
    const cacheName = key.sealName + salt.toString('latin1')
    return {
      objectName: key.name,
      sealName: key.sealName,
      cacheName,
      salt,
      handle,
      users: 0,
      messages: 0,
      isKept: false,
      isDestroyed: false,
      epoch,
    }
  }

  #keepSealing(working: WorkingKey): void {
    const before = this.#sealing.get(working.sealName)
    if (before !== undefined) this.#evict(before)
    for (const oldest of this.#sealing.values()) {
      if (this.#sealing.size < this.#limits.sealing) break
      this.#evict(oldest)
    }
    working.isKept = true
    this.#sealing.set(working.sealName, working)
  }

  #keepOpening(working: WorkingKey): void {
    for (const oldest of this.#opening.values()) {
      if (this.#opening.size < this.#limits.opening) break
      this.#evict(oldest)
    }
    working.isKept = true
    this.#opening.set(working.cacheName, working)
  }

  #remove(working: WorkingKey): void {
    if (this.#sealing.get(working.sealName) === working) this.#sealing.delete(working.sealName)
    if (this.#opening.get(working.cacheName) === working) this.#opening.delete(working.cacheName)
    if (this.#unproven.get(working.cacheName) === working) this.#unproven.delete(working.cacheName)
    working.isKept = false
  }

  #evict(working: WorkingKey): void {
    const wasKept = working.isKept
    this.#remove(working)
    if (wasKept && working.users === 0) this.#destroy(working)
  }

  #destroy(working: WorkingKey): void {
    if (working.isDestroyed) return
    working.isDestroyed = true
    this.#jobs.discard(working.handle)
  }
}

const deviceMemory = 0x31
