/**
 * What a worker has proven about its module before it takes calls: which derivation works, whose IV AES-GCM takes, which number AES-KWP
 * has. Proven with short-lived session objects, in software, against known answers where a known key may be put in.
 */
import { createCipheriv, randomBytes } from 'node:crypto'
import type { Construction } from '../port.ts'
import { type JobOp, jobOp, type MechanismDescription } from './addon.ts'
import { CKA, CKK, CKM } from './cryptoki.ts'
import { tryMade } from './iv-conduct.ts'
import type { Call, JobInput, JobResult, Jobs } from './jobs.ts'
import { encodeParams, encodeTemplate } from './pack.ts'
import { sessionSecretTemplate } from './templates.ts'
import { type Derivation, derivationMechanism, derivationParams, saltBytes } from './working-keys.ts'

export interface Facts {
  readonly mechanisms: ReadonlyMap<number, MechanismDescription>
  readonly derivation: Derivation
  readonly gcmIv: 'caller' | 'module' | 'none'
  readonly kwpMechanism: number | undefined
  /** Learnt at the first use or by the probe. */
  oaepSha256: 'native' | 'raw' | 'none' | 'unknown'
  /** What was tried and why it is not used. */
  readonly refused: readonly { readonly what: string; readonly why: string }[]
}

export function constructionOfFacts(facts: Facts): Construction {
  if (facts.gcmIv === 'none') return 'none'
  return facts.derivation === 'none' ? 'direct' : 'derived'
}

const proofBytes = 48

/** A session key of the worker's own, under proof. `value` is known where the module lets secrets in. */
interface ProofKey {
  readonly handle: bigint
  readonly value: Buffer | undefined
}

/** Proves and forgets: every object made here is destroyed before it returns. Codes of the module end up in `refused`, not in an error. */
export async function proveFacts(jobs: Jobs, call: Call, mechanisms: readonly MechanismDescription[]): Promise<Facts> {
  const proof = new Proof(jobs, call)
  const known = new Map(mechanisms.map((mechanism) => [mechanism.type, mechanism]))
  const gcmIv = known.has(CKM.aesGcm) ? await proof.gcmIv() : 'none'
  let derivation: Derivation = 'none'
  for (const candidate of ['ecb', 'cbc'] as const) {
    if (derivation !== 'none' || gcmIv === 'none' || !known.has(derivationMechanism(candidate))) continue
    if (await proof.derivation(candidate, gcmIv)) derivation = candidate
  }
  let kwpMechanism: number | undefined
  for (const candidate of [CKM.aesKeyWrapKwp, CKM.aesKeyWrapPad]) {
    if (kwpMechanism === undefined && known.has(candidate) && (await proof.kwp(candidate))) kwpMechanism = candidate
  }
  if (gcmIv === 'none') proof.refuse('AES_GCM', known.has(CKM.aesGcm) ? 'no IV rule proved right' : 'no such mechanism')
  if (derivation === 'none') proof.refuse('derived working keys', 'no derivation mechanism proved right')
  if (kwpMechanism === undefined) proof.refuse('AES_KWP', 'no mechanism wraps as RFC 5649 says')
  return { mechanisms: known, derivation, gcmIv, kwpMechanism, oaepSha256: 'unknown', refused: proof.refused }
}

class Proof {
  readonly #jobs: Jobs
  readonly #call: Call
  readonly refused: { what: string; why: string }[] = []

  constructor(jobs: Jobs, call: Call) {
    this.#jobs = jobs
    this.#call = call
  }

  refuse(what: string, why: string): void {
    this.refused.push({ what, why })
  }

  async gcmIv(): Promise<Facts['gcmIv']> {
    const first = this.#jobs.profile.gcmIv
    const second = first === 'caller' ? 'module' : 'caller'
    const key = await this.#aesKey([CKA.encrypt, CKA.decrypt])
    if (key === undefined) return 'none'
    try {
      for (const mode of [first, second] as const) {
        if (!(await this.#gcm(key, mode))) continue
        // IVs of ours are random; those of a module that repeats them would give away every plaintext
        if (mode === 'caller' || (await tryMade(this.#jobs, this.#call, key.handle)) === 'distinct') return mode
      }
      return 'none'
    } finally {
      this.#jobs.discard(key.handle)
    }
  }

  /** The derived key must be the one that the mechanism names, or at least one key per salt, and seal with it. */
  async derivation(derivation: Derivation, gcmIv: 'caller' | 'module'): Promise<boolean> {
    const base = await this.#aesKey([CKA.derive])
    if (base === undefined) return false
    const salts = [randomBytes(saltBytes), randomBytes(saltBytes)] as const
    const derived: ProofKey[] = []
    try {
      for (const salt of [salts[0], salts[0], salts[1]]) {
        const handle = await this.#derive(base, derivation, salt)
        if (handle === undefined) return false
        derived.push({ handle, value: base.value && expectedKey(base.value, derivation, salt) })
      }
      const [one, same, other] = derived as [ProofKey, ProofKey, ProofKey]
      if (!(await this.#gcm(one, gcmIv))) return false
      const iv = randomBytes(12)
      const sealed = await this.#gcmJob(jobOp.encrypt, one.handle, iv, gcmIv, randomBytes(proofBytes))
      if (sealed.rv !== 0 || sealed.output === null) return false
      const [usedIv, body] = splitIv(sealed.output, iv, gcmIv)
      const opened = await this.#gcmJob(jobOp.decrypt, same.handle, usedIv, 'caller', body)
      const refusedByOther = await this.#gcmJob(jobOp.decrypt, other.handle, usedIv, 'caller', body)
      opened.output?.fill(0)
      return opened.rv === 0 && refusedByOther.rv !== 0
    } finally {
      for (const { handle } of [base, ...derived]) this.#jobs.discard(handle)
    }
  }

  /** RFC 5649, checked against OpenSSL where known keys may be put in; else by round trip and length. */
  async kwp(mechanism: number): Promise<boolean> {
    const kek = await this.#aesKey([CKA.wrap, CKA.unwrap])
    const target = await this.#aesKey([CKA.encrypt], true)
    let back = 0n
    try {
      if (kek === undefined || target === undefined) return false
      const job = { mechanism, key: kek.handle, key2: target.handle, outMax: 128 }
      const wrapped = await this.#try(jobOp.wrap, job)
      if (wrapped.rv !== 0 || wrapped.output?.length !== 40) return false
      if (kek.value !== undefined && target.value !== undefined) {
        if (!wrapped.output.equals(expectedKwp(kek.value, target.value))) return false
      }
      const template = encodeTemplate(
        sessionSecretTemplate(CKK.aes, 32, [CKA.encrypt]).filter(([type]) => type !== CKA.valueLen),
      )
      const unwrap = { mechanism, key: kek.handle, aux: template }
      const good = await this.#try(jobOp.unwrap, { ...unwrap, input: wrapped.output })
      if (good.rv !== 0) return false
      back = good.handle
      const tampered = Buffer.from(wrapped.output)
      tampered[20] = (tampered[20] as number) ^ 1
      const bad = await this.#jobs.attempt(this.#call, jobOp.unwrap, { ...unwrap, input: tampered })
      if (bad.rv === 0) this.#jobs.discard(bad.handle)
      return bad.rv !== 0
    } finally {
      for (const handle of [kek?.handle ?? 0n, target?.handle ?? 0n, back])
        if (handle !== 0n) this.#jobs.discard(handle)
    }
  }

  /** A key of known value where C_CreateObject lets it in, else one that the module makes. */
  async #aesKey(usages: readonly number[], isExtractable = false): Promise<ProofKey | undefined> {
    const template = sessionSecretTemplate(CKK.aes, 32, usages).map((attribute) =>
      attribute[0] === CKA.extractable ? ([CKA.extractable, isExtractable] as const) : attribute,
    )
    const value = randomBytes(32)
    const withValue = encodeTemplate([...template.filter(([type]) => type !== CKA.valueLen), [CKA.value, value]])
    const created = await this.#try(jobOp.createObject, { aux: withValue })
    if (created.rv === 0) return { handle: created.handle, value }
    const job = { mechanism: CKM.aesKeyGen, aux: encodeTemplate(template) }
    const generated = await this.#try(jobOp.generateKey, job)
    return generated.rv === 0 ? { handle: generated.handle, value: undefined } : undefined
  }

  /**
   * A job that should work. What says that the module lacks something is an answer; trouble of the moment is asked again and then thrown,
   * lest a busy token be taken for one that can do less.
   */
  async #try(op: JobOp, job: JobInput, repeats = 2): Promise<JobResult> {
    for (let left = repeats; ; left--) {
      const result = await this.#jobs.attempt(this.#call, op, job)
      if (result.rv === 0) return result
      const { action } = this.#jobs.judge(this.#call, op, result.rv)
      if (action === 'A' || action === 'B') return result
      if (left === 0) {
        if (action === 'S') return result
        throw this.#jobs.failure(this.#call, op, result.rv)
      }
    }
  }

  async #derive(base: ProofKey, derivation: Derivation, salt: Buffer): Promise<bigint | undefined> {
    const { rv, handle } = await this.#try(jobOp.derive, {
      mechanism: derivationMechanism(derivation),
      key: base.handle,
      params: derivationParams(derivation, salt),
      aux: encodeTemplate(sessionSecretTemplate(CKK.aes, 32, [CKA.encrypt, CKA.decrypt])),
    })
    return rv === 0 ? handle : undefined
  }

  /** IV, additional data and tag must all matter; a module that ignores or repeats an IV fails here. */
  async #gcm(key: ProofKey, ivMode: 'caller' | 'module'): Promise<boolean> {
    const data = randomBytes(proofBytes)
    const ivs = [randomBytes(12), randomBytes(12)] as const
    const opens: { iv: Buffer; body: Buffer }[] = []
    for (const iv of ivs) {
      const sent = ivMode === 'caller' ? iv : Buffer.alloc(12)
      const { rv, output } = await this.#gcmJob(jobOp.encrypt, key.handle, sent, ivMode, data)
      if (rv !== 0 || output === null) return false
      const [usedIv, body] = splitIv(output, iv, ivMode)
      if (body.length !== proofBytes + 16) return false
      if (key.value !== undefined && !body.equals(expectedGcm(key.value, usedIv, data))) return false
      opens.push({ iv: usedIv, body })
    }
    const [one, two] = opens as [{ iv: Buffer; body: Buffer }, { iv: Buffer; body: Buffer }]
    if (one.iv.equals(two.iv) || one.body.equals(two.body) || one.iv.equals(Buffer.alloc(12))) return false
    const good = await this.#gcmJob(jobOp.decrypt, key.handle, one.iv, 'caller', one.body)
    if (good.rv !== 0 || good.output?.equals(data) !== true) return false
    const tampered = Buffer.from(one.body)
    tampered[proofBytes] = (tampered[proofBytes] as number) ^ 1
    const badTag = await this.#gcmJob(jobOp.decrypt, key.handle, one.iv, 'caller', tampered)
    const badIv = await this.#gcmJob(jobOp.decrypt, key.handle, two.iv, 'caller', one.body)
    const badAad = await this.#gcmJob(jobOp.decrypt, key.handle, one.iv, 'caller', one.body, Buffer.from('other'))
    return badTag.rv !== 0 && badIv.rv !== 0 && badAad.rv !== 0
  }

  #gcmJob(
    op: typeof jobOp.encrypt | typeof jobOp.decrypt,
    key: bigint,
    iv: Buffer,
    ivMode: 'caller' | 'module',
    input: Buffer,
    aad: Buffer = proofAad,
  ): Promise<JobResult> {
    const params = encodeParams({ kind: 'gcm', iv, aad, ivMode: ivMode === 'caller' ? 'given' : 'module' })
    const job = { mechanism: CKM.aesGcm, key, params, input, outMax: input.length + 32 }
    // a decryption may be meant to fail: its codes are the answer
    return this.#try(op, job, op === jobOp.encrypt ? 2 : 0)
  }
}

const proofAad = Buffer.from('hsmgate proof')

function splitIv(output: Buffer, iv: Buffer, ivMode: 'caller' | 'module'): [Buffer, Buffer] {
  return ivMode === 'caller' ? [iv, output] : [output.subarray(0, 12), output.subarray(12)]
}

function expectedGcm(key: Buffer, iv: Buffer, data: Buffer): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(proofAad)
  return Buffer.concat([cipher.update(data), cipher.final(), cipher.getAuthTag()])
}

function expectedKey(base: Buffer, derivation: Derivation, salt: Buffer): Buffer {
  const iv = derivation === 'cbc' ? Buffer.alloc(16) : null
  const cipher = createCipheriv(derivation === 'cbc' ? 'aes-256-cbc' : 'aes-256-ecb', base, iv).setAutoPadding(false)
  return Buffer.concat([cipher.update(salt), cipher.final()])
}

function expectedKwp(kek: Buffer, key: Buffer): Buffer {
  // initial value of RFC 5649 section 3
  const cipher = createCipheriv('id-aes256-wrap-pad', kek, Buffer.from('a65959a6', 'hex'))
  return Buffer.concat([cipher.update(key), cipher.final()])
}
