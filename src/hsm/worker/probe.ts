/**
 * The capability probe: makes a session key of every spec through the worker's own code, uses it in every way that the API offers, and
 * verifies each answer in software. A module that answers wrongly is as good as one that refuses. Everything made is destroyed.
 *
 * Trouble of the moment (busy, token gone, deadline) ends the probe with that failure: it proves nothing about what the token can do.
 */
import {
  constants,
  createCipheriv,
  createHash,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
  randomBytes,
  randomUUID,
  verify,
} from 'node:crypto'
import { probeVersion } from '../frames.ts'
import type { Capabilities, GenerateIntent, KeySpec, KeyUsage, MacAlgorithm, SignAlgorithm } from '../port.ts'
import { jobOp } from './addon.ts'
import type { Cipher } from './cipher.ts'
import type { Created, Creating } from './creating.ts'
import { CKA, CKK, CKM } from './cryptoki.ts'
import { destroySessionObject } from './describe.ts'
import { verifyEd25519ph } from './ed25519ph.ts'
import { constructionOfFacts, type Facts } from './facts.ts'
import { CallFailure } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import { keyShapes } from './key-shapes.ts'
import { macEntries, oaepEntries } from './mechanisms.ts'
import type { KeyRef, Objects } from './objects.ts'
import { encodeTemplate } from './pack.ts'
import type { Signing } from './signing.ts'
import { ed25519Bytes } from './spki.ts'
import { sessionSecretTemplate } from './templates.ts'
import type { WorkingKeys } from './working-keys.ts'

export interface ProbeParts {
  readonly jobs: Jobs
  readonly objects: Objects
  readonly facts: Facts
  readonly creating: Creating
  readonly signing: Signing
  readonly cipher: Cipher
  readonly workingKeys: WorkingKeys
}

const noBytes = Buffer.alloc(0)
const ecdsaCurves = ['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521', 'ECC_SECG_P256K1'] as const
const rsaSpecs = ['RSA_2048', 'RSA_3072', 'RSA_4096'] as const
const pkcs1Hashes = ['sha1', 'sha224', 'sha256', 'sha384', 'sha512'] as const
const pssHashes = ['sha256', 'sha384', 'sha512'] as const
const postQuantum = ['ML_DSA_44', 'ML_DSA_65', 'ML_DSA_87', 'ML_KEM_512', 'ML_KEM_768', 'ML_KEM_1024'] as const

export async function probeToken(parts: ProbeParts, call: Call): Promise<Capabilities> {
  const probe = new Probe(parts, call)
  try {
    await probe.random()
    // RSA generation is what takes the time; the rest fits beside it
    const groups = await Promise.allSettled([
      probe.rsa(),
      probe.curves(),
      probe.edwards(),
      probe.hmac(),
      probe.symmetric(),
    ])
    for (const group of groups) if (group.status === 'rejected') throw group.reason
    return probe.result()
  } finally {
    await probe.destroyAll()
  }
}

interface ProbeKey {
  readonly ref: KeyRef
  readonly publicKey: Buffer
}

class Probe {
  readonly #parts: ProbeParts
  readonly #call: Call
  readonly #keys: KeyRef[] = []
  readonly #algorithms = new Set<string>()
  readonly #specs: Partial<Record<KeySpec, KeyUsage[]>> = {}
  readonly #refused: { what: string; why: string }[] = []
  #oaepSha256: Capabilities['oaepSha256'] = 'none'
  #isRandom = false

  constructor(parts: ProbeParts, call: Call) {
    this.#parts = parts
    this.#call = call
  }

  result(): Capabilities {
    const { facts } = this.#parts
    for (const what of postQuantum) this.#refused.push({ what, why: 'needs PKCS#11 3.2; no mapping here' })
    const sealed = this.#algorithms.has('SEAL')
    return {
      probe: probeVersion,
      // a token without randomness makes no keys worth having
      specs: this.#isRandom ? this.#specs : {},
      algorithms: this.#isRandom ? [...this.#algorithms] : [],
      oaepSha256: this.#oaepSha256,
      construction: sealed ? constructionOfFacts(facts) : 'none',
      gcmIv: facts.gcmIv,
      refused: [...facts.refused, ...this.#refused],
    }
  }

  async destroyAll(): Promise<void> {
    const { jobs, objects, workingKeys } = this.#parts
    const names = new Set(this.#keys.map(({ name }) => name))
    workingKeys.forget((name) => names.has(name))
    for (const key of this.#keys) await destroySessionObject(jobs, objects, this.#call, key).catch(() => {})
  }

  async random(): Promise<void> {
    this.#isRandom = await this.#prove('random', async () => {
      const drawn = await Promise.all([0, 1].map(() => this.#parts.jobs.need(this.#call, jobOp.random, { outMax: 64 })))
      const [one, two] = drawn.map(({ output }) => output as Buffer) as [Buffer, Buffer]
      return one.length === 64 && !one.equals(two) && new Set(one).size > 16
    })
  }

  async rsa(): Promise<void> {
    const [signs, decrypts, unwraps] = await this.#rsaKeys()
    const usages: KeyUsage[] = []
    if (signs !== undefined && (await this.#rsaSignatures(signs))) usages.push('SIGN_VERIFY')
    if (decrypts !== undefined && (await this.#oaep(decrypts))) usages.unshift('ENCRYPT_DECRYPT')
    if (unwraps !== undefined && (await this.#rsaUnwrap(unwraps))) usages.push('WRAP_UNWRAP')
    const maxBits = this.#parts.facts.mechanisms.get(CKM.rsaPkcsKeyPairGen)?.maxKeySize ?? 0
    for (const spec of rsaSpecs) {
      if (usages.length === 0) break
      const bits = keyShapes[spec]?.modulusBits as number
      if (bits <= Math.max(maxBits, 2048)) this.#specs[spec] = usages
      else this.#refuse(spec, `the module's limit is ${maxBits} bits`)
    }
  }

  /** One pair that does everything, since generating takes its time; three where the module wants one use for each key. */
  async #rsaKeys(): Promise<readonly (ProbeKey | undefined)[]> {
    const intent = sessionIntent('RSA_2048', 'SIGN_VERIFY', 'kms')
    const all = [CKA.sign, CKA.decrypt, CKA.unwrap]
    try {
      const created = await this.#parts.creating.generateSession(this.#call, intent, all)
      const { session } = this.#parts.objects
      const unwraps = session.alias(created.session, { purpose: 'system', wraps: true, unwraps: true })
      const first = this.#track(intent, created)
      return [first, first, this.#track({ ...intent, purpose: 'system' }, { ...created, session: unwraps })]
    } catch (error) {
      if (!(error instanceof CallFailure) || isOfTheMoment(error)) throw error
    }
    return Promise.all([
      this.#generate('RSA_2048', 'SIGN_VERIFY'),
      this.#generate('RSA_2048', 'ENCRYPT_DECRYPT'),
      this.#generate('RSA_2048', 'WRAP_UNWRAP', 'system'),
    ])
  }

  async #rsaSignatures(key: ProbeKey): Promise<boolean> {
    const publicKey = toKeyObject(key.publicKey)
    const isGood = await Promise.all([
      ...pkcs1Hashes.map((hash) => this.#signature(key, `RSASSA_PKCS1_V1_5_${upper(hash)}`, hash, { key: publicKey })),
      ...pssHashes.map((hash) =>
        this.#signature(key, `RSASSA_PSS_${upper(hash)}`, hash, {
          key: publicKey,
          padding: constants.RSA_PKCS1_PSS_PADDING,
          saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
        }),
      ),
    ])
    return isGood.includes(true)
  }

  #signature(
    key: ProbeKey,
    algorithm: string,
    hash: string,
    how: { key: KeyObject; padding?: number; saltLength?: number; dsaEncoding?: 'ieee-p1363' },
  ): Promise<boolean> {
    return this.#prove(algorithm, async () => {
      const data = randomBytes(100)
      const digest = createHash(hash).update(data).digest()
      const name = algorithm as SignAlgorithm
      return verify(hash, data, how, await this.#parts.signing.sign(this.#call, key.ref, name, digest))
    })
  }

  async #oaep(key: ProbeKey): Promise<boolean> {
    const publicKey = toKeyObject(key.publicKey)
    const isGood: boolean[] = []
    for (const algorithm of ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const) {
      isGood.push(
        await this.#prove(algorithm, async () => {
          const data = randomBytes(64)
          const sealed = oaepEncrypt(publicKey, oaepEntries[algorithm].hash, data)
          const open = (bytes: Buffer) =>
            this.#parts.cipher.decrypt(this.#call, key.ref, algorithm, {
              prefix: noBytes,
              context: noBytes,
              data: bytes,
            })
          if (!(await open(sealed)).equals(data)) return false
          const other = oaepEncrypt(publicKey, algorithm === 'RSAES_OAEP_SHA_1' ? 'sha256' : 'sha1', data)
          return this.#isRefused(() => open(other))
        }),
      )
    }
    const { oaepSha256 } = this.#parts.facts
    if (isGood[1] && (oaepSha256 === 'native' || oaepSha256 === 'raw')) this.#oaepSha256 = oaepSha256
    if (this.#oaepSha256 === 'raw') this.#refuse('RSAES_OAEP_SHA_256 in the module', 'raw RSA, decoded in the worker')
    return isGood.includes(true)
  }

  async #rsaUnwrap(key: ProbeKey): Promise<boolean> {
    const publicKey = toKeyObject(key.publicKey)
    const oaep = await this.#prove(
      'unwrap RSAES_OAEP_SHA_1',
      async () => {
        const value = randomBytes(32)
        return this.#unwrapsTo(key, 'RSAES_OAEP_SHA_1', oaepEncrypt(publicKey, 'sha1', value), value)
      },
      false,
    )
    for (const [algorithm, hash] of [
      ['RSA_AES_KEY_WRAP_SHA_1', 'sha1'],
      ['RSA_AES_KEY_WRAP_SHA_256', 'sha256'],
    ] as const) {
      await this.#prove(algorithm, async () => {
        const value = randomBytes(32)
        const aes = randomBytes(32)
        const wrapped = Buffer.concat([oaepEncrypt(publicKey, hash, aes), wrapWithPadding(aes, value)])
        return this.#unwrapsTo(key, algorithm, wrapped, value)
      })
    }
    return oaep
  }

  /** The unwrapped key is the one that was wrapped: its MAC is that of the known value. */
  async #unwrapsTo(
    key: ProbeKey,
    algorithm: 'RSAES_OAEP_SHA_1' | 'RSA_AES_KEY_WRAP_SHA_1' | 'RSA_AES_KEY_WRAP_SHA_256',
    wrapped: Buffer,
    value: Buffer,
  ): Promise<boolean> {
    const intent = sessionIntent('HMAC_256', 'GENERATE_VERIFY_MAC', 'kms')
    const created = await this.#parts.creating.unwrapSession(this.#call, key.ref, algorithm, wrapped, intent)
    const { ref } = this.#track(intent, created)
    const message = randomBytes(40)
    const mac = await this.#parts.signing.mac(this.#call, ref, 'HMAC_SHA_256', message)
    return mac.equals(createHmac('sha256', value).update(message).digest())
  }

  async curves(): Promise<void> {
    for (const spec of ecdsaCurves) {
      const signs = await this.#generate(spec, 'SIGN_VERIFY')
      const usages: KeyUsage[] = []
      if (signs !== undefined) {
        const publicKey = toKeyObject(signs.publicKey)
        const isGood = await Promise.all(
          pssHashes.map((hash) => this.#signature(signs, 'ECDSA', hash, { key: publicKey, dsaEncoding: 'ieee-p1363' })),
        )
        if (!isGood.includes(false)) usages.push('SIGN_VERIFY')
      }
      if (keyShapes[spec]?.usages.includes('KEY_AGREEMENT') && (await this.#agreement(spec)))
        usages.push('KEY_AGREEMENT')
      if (usages.length > 0) this.#specs[spec] = usages
    }
  }

  async #agreement(spec: KeySpec): Promise<boolean> {
    const agrees = await this.#generate(spec, 'KEY_AGREEMENT')
    if (agrees === undefined) return false
    return this.#prove('ECDH', async () => {
      const namedCurve = keyShapes[spec]?.curve?.node as string
      const peer = generateKeyPairSync('ec', { namedCurve })
      const expected = diffieHellman({ privateKey: peer.privateKey, publicKey: toKeyObject(agrees.publicKey) })
      const peerSpki = peer.publicKey.export({ format: 'der', type: 'spki' })
      const secret = await this.#parts.signing.derive(this.#call, agrees.ref, peerSpki)
      const isSame = secret.equals(expected)
      secret.fill(0)
      return isSame
    })
  }

  async edwards(): Promise<void> {
    const key = await this.#generate('ECC_NIST_EDWARDS25519', 'SIGN_VERIFY')
    if (key === undefined) return
    const publicKey = toKeyObject(key.publicKey)
    const { signing } = this.#parts
    const isPure = await this.#prove('ED25519', async () => {
      const message = randomBytes(100)
      return verify(null, message, publicKey, await signing.sign(this.#call, key.ref, 'ED25519', message))
    })
    await this.#prove('ED25519_PH', async () => {
      const digest = randomBytes(64)
      const signature = await signing.sign(this.#call, key.ref, 'ED25519_PH', digest)
      if (verify(null, digest, publicKey, signature)) return 'phFlag is ignored: a plain Ed25519 signature came back'
      return verifyEd25519ph(key.publicKey.subarray(-ed25519Bytes), digest, signature)
    })
    if (isPure) this.#specs.ECC_NIST_EDWARDS25519 = ['SIGN_VERIFY']
  }

  async hmac(): Promise<void> {
    for (const [name, { specs, hash, macBytes }] of Object.entries(macEntries)) {
      const spec = specs[0] as KeySpec
      const key = await this.#generate(spec, 'GENERATE_VERIFY_MAC')
      if (key === undefined) continue
      const isGood = await this.#prove(name, async () => {
        const { signing } = this.#parts
        const ask = (message: Buffer) => signing.mac(this.#call, key.ref, name as MacAlgorithm, message)
        const [one, same, other, empty] = await Promise.all(
          ['one', 'one', 'two', ''].map((message) => ask(Buffer.from(message))),
        )
        if (one?.length !== macBytes || !same?.equals(one) || other?.equals(one) || empty?.length !== macBytes)
          return false
        return this.#macIsKnown(name as MacAlgorithm, hash)
      })
      const hasId = isGood && (await this.#materialId(key))
      if (isGood && hasId) this.#specs[spec] = ['GENERATE_VERIFY_MAC']
    }
  }

  /** The right MAC for a key of known value, where the module lets one in. */
  async #macIsKnown(algorithm: MacAlgorithm, hash: string): Promise<boolean> {
    const { jobs } = this.#parts
    const value = randomBytes(64)
    const template = sessionSecretTemplate(CKK.genericSecret, 64, [CKA.sign]).filter(([type]) => type !== CKA.valueLen)
    const aux = encodeTemplate([...template, [CKA.value, value]])
    const created = await jobs.attempt(this.#call, jobOp.createObject, { aux })
    if (created.rv !== 0) return true
    try {
      const message = randomBytes(33)
      const { mechanism, macBytes } = macEntries[algorithm] as NonNullable<(typeof macEntries)[MacAlgorithm]>
      const job = { mechanism, key: created.handle, input: message, outMax: macBytes }
      const { output } = await jobs.need(this.#call, jobOp.sign, job)
      return output?.equals(createHmac(hash, value).update(message).digest()) === true
    } finally {
      jobs.discard(created.handle)
    }
  }

  async symmetric(): Promise<void> {
    const { facts, cipher } = this.#parts
    const usages: KeyUsage[] = []
    const key =
      constructionOfFacts(facts) === 'none' ? undefined : await this.#generate('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    if (key !== undefined) {
      const seals = await this.#prove('SEAL', async () => {
        const prefix = Buffer.from('prefix')
        const context = Buffer.from('context')
        const data = randomBytes(100)
        const seal = (bytes: Buffer) =>
          cipher.encrypt(this.#call, key.ref, 'SEAL', { prefix, context, data: bytes }, jobOp.encryptVerify)
        const open = (sealed: Buffer, otherContext = context) =>
          cipher.decrypt(this.#call, key.ref, 'SEAL', { prefix, context: otherContext, data: sealed })
        const [one, two, empty] = await Promise.all([seal(Buffer.from(data)), seal(Buffer.from(data)), seal(noBytes)])
        if (one.equals(two) || !(await open(one)).equals(data) || (await open(empty)).length !== 0) return false
        const tampered = Buffer.from(one)
        tampered[tampered.length - 1] = (tampered.at(-1) as number) ^ 1
        return (await this.#isRefused(() => open(tampered))) && this.#isRefused(() => open(one, prefix))
      })
      if (facts.gcmIv !== 'none') this.#algorithms.add('AES_GCM')
      if (seals && (await this.#materialId(key))) usages.push('ENCRYPT_DECRYPT')
    }
    if (facts.kwpMechanism !== undefined && (await this.#wrapping())) usages.push('WRAP_UNWRAP')
    if (usages.length > 0) this.#specs.SYMMETRIC_DEFAULT = usages
  }

  async #wrapping(): Promise<boolean> {
    const wraps = await this.#generate('SYMMETRIC_DEFAULT', 'WRAP_UNWRAP', 'system')
    const target = await this.#generate('HMAC_256', 'GENERATE_VERIFY_MAC', 'kms', true)
    if (wraps === undefined || target === undefined) return false
    const { creating, signing } = this.#parts
    return this.#prove('AES_KWP', async () => {
      const wrapped = await creating.wrap(this.#call, wraps.ref, target.ref, 'AES_KWP')
      const intent = sessionIntent('HMAC_256', 'GENERATE_VERIFY_MAC', 'kms')
      const back = this.#track(intent, await creating.unwrapSession(this.#call, wraps.ref, 'AES_KWP', wrapped, intent))
      const message = randomBytes(20)
      const [one, two] = await Promise.all(
        [target, back].map(({ ref }) => signing.mac(this.#call, ref, 'HMAC_SHA_256', message)),
      )
      return one?.equals(two as Buffer) === true
    })
  }

  #materialId(key: ProbeKey): Promise<boolean> {
    return this.#prove('MATERIAL_ID', async () => {
      const ask = (message: string) => this.#parts.signing.mac(this.#call, key.ref, 'MATERIAL_ID', Buffer.from(message))
      const [one, same, other] = await Promise.all([ask('one'), ask('one'), ask('other')])
      return one.length === 32 && one.equals(same) && !one.equals(other)
    })
  }

  async #generate(
    spec: KeySpec,
    usage: KeyUsage,
    purpose: 'kms' | 'system' = 'kms',
    exportable = false,
  ): Promise<ProbeKey | undefined> {
    const intent = { ...sessionIntent(spec, usage, purpose), exportable }
    let key: ProbeKey | undefined
    await this.#prove(
      `${spec} for ${usage}`,
      async () => {
        key = this.#track(intent, await this.#parts.creating.generateSession(this.#call, intent))
        return true
      },
      false,
    )
    return key
  }

  #track(intent: GenerateIntent, { session, construction, publicKey }: Created): ProbeKey {
    const { purpose, spec } = intent
    const shape = keyShapes[spec] as NonNullable<(typeof keyShapes)[KeySpec]>
    const name = `#${session}`
    const sealName = `${purpose} ${name}`
    const ref = { purpose, spec, shape, construction, session, objectId: noBytes, label: '', name, sealName }
    this.#keys.push(ref)
    return { ref, publicKey }
  }

  async #isRefused(open: () => Promise<Buffer>): Promise<boolean> {
    try {
      ;(await open()).fill(0)
      return false
    } catch (error) {
      if (error instanceof CallFailure && error.failure.code === 'CiphertextInvalid') return true
      throw error
    }
  }

  /** Records the algorithm as proven, or why not; a text is a reason. An algorithm once disproven stays so. */
  async #prove(what: string, attempt: () => Promise<boolean | string>, isAlgorithm = true): Promise<boolean> {
    for (let left = 1; ; left--) {
      try {
        const answer = await attempt()
        if (answer !== true) {
          this.#refuse(what, typeof answer === 'string' ? answer : 'the answer does not verify in software')
          return false
        }
        if (isAlgorithm && what !== 'random' && !this.#refused.some((refused) => refused.what === what))
          this.#algorithms.add(what)
        return true
      } catch (error) {
        if (!(error instanceof CallFailure) || isOfTheMoment(error)) throw error
        if (error.failure.action === 'S' && left > 0) continue
        this.#refuse(what, error.failure.detail)
        return false
      }
    }
  }

  #refuse(what: string, why: string): void {
    this.#algorithms.delete(what)
    if (!this.#refused.some((refused) => refused.what === what)) this.#refused.push({ what, why })
  }
}

/** Nothing that the token can't do: it could not do it now. */
function isOfTheMoment({ failure }: CallFailure): boolean {
  return failure.code === 'DeadlineExceeded' || ['T', 'D', 'I', 'L', 'O', 'H'].includes(failure.action)
}

function sessionIntent(spec: KeySpec, usage: KeyUsage, purpose: 'kms' | 'system'): GenerateIntent {
  const objectId = randomBytes(16)
  return { group: '', spec, usage, purpose, objectId, keyId: randomUUID(), number: 0, residence: 'session' }
}

function toKeyObject(spki: Buffer): KeyObject {
  return createPublicKey({ key: spki, format: 'der', type: 'spki' })
}

function oaepEncrypt(key: KeyObject, oaepHash: string, data: Buffer): Buffer {
  return publicEncrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, data)
}

/** AES-KWP in software, initial value of RFC 5649 section 3. */
function wrapWithPadding(kek: Buffer, value: Buffer): Buffer {
  const cipher = createCipheriv('id-aes256-wrap-pad', kek, Buffer.from('a65959a6', 'hex'))
  return Buffer.concat([cipher.update(value), cipher.final()])
}

/** `sha256` to `SHA_256`. */
function upper(hash: string): string {
  return hash.toUpperCase().replace('SHA', 'SHA_')
}
