/**
 * The probe's proofs of RSA, elliptic curves and Ed25519: signatures, decryption, agreement and unwrapping, checked by node:crypto.
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
  verify,
} from 'node:crypto'
import type { KeySpec, KeyUsage, SignAlgorithm } from '../port.ts'
import { loadAddon, signatureScheme } from './addon.ts'
import { CKA, CKM } from './cryptoki.ts'
import { CallFailure } from './failure.ts'
import { keyShapes } from './key-shapes.ts'
import { oaepEntries } from './mechanisms.ts'
import { isOfTheMoment, isRefused, type ProbeKey, type ProbeRun, sessionIntent } from './probe-run.ts'

const noBytes = Buffer.alloc(0)
const ecdsaCurves = ['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521', 'ECC_SECG_P256K1'] as const
const curveHashes = {
  ECC_NIST_P256: 'sha256',
  ECC_NIST_P384: 'sha384',
  ECC_NIST_P521: 'sha512',
  ECC_SECG_P256K1: 'sha256',
} as const
const rsaSpecs = ['RSA_2048', 'RSA_3072', 'RSA_4096'] as const
const pkcs1Hashes = ['sha1', 'sha224', 'sha256', 'sha384', 'sha512'] as const
const pssHashes = ['sha256', 'sha384', 'sha512'] as const

export async function probeRsa(run: ProbeRun): Promise<void> {
  const [signs, decrypts, unwraps] = await rsaKeys(run)
  const usages: KeyUsage[] = []
  if (signs !== undefined && (await rsaSignatures(run, signs))) usages.push('SIGN_VERIFY')
  if (decrypts !== undefined && (await oaep(run, decrypts))) usages.unshift('ENCRYPT_DECRYPT')
  if (unwraps !== undefined && (await rsaUnwrap(run, unwraps))) usages.push('WRAP_UNWRAP')
  const maxBits = run.parts.facts.mechanisms.get(CKM.rsaPkcsKeyPairGen)?.maxKeySize ?? 0
  for (const spec of rsaSpecs) {
    if (usages.length === 0) break
    const bits = keyShapes[spec]?.modulusBits as number
    if (bits <= Math.max(maxBits, 2048)) run.specs[spec] = usages
    else run.refuse(spec, `the module's limit is ${maxBits} bits`)
  }
}

/** One pair that does everything, since generating takes its time; three where the module wants one use for each key. */
async function rsaKeys(run: ProbeRun): Promise<readonly (ProbeKey | undefined)[]> {
  const intent = sessionIntent('RSA_2048', 'SIGN_VERIFY', 'kms')
  const all = [CKA.sign, CKA.decrypt, CKA.unwrap]
  try {
    const created = await run.parts.creating.generateSession(run.call, intent, all)
    const { session } = run.parts.objects
    const unwraps = session.alias(created.session, { purpose: 'system', wraps: true, unwraps: true })
    const first = run.track(intent, created)
    return [first, first, run.track({ ...intent, purpose: 'system' }, { ...created, session: unwraps })]
  } catch (error) {
    if (!(error instanceof CallFailure) || isOfTheMoment(error)) throw error
  }
  return Promise.all([
    run.generate('RSA_2048', 'SIGN_VERIFY'),
    run.generate('RSA_2048', 'ENCRYPT_DECRYPT'),
    run.generate('RSA_2048', 'WRAP_UNWRAP', 'system'),
  ])
}

async function rsaSignatures(run: ProbeRun, key: ProbeKey): Promise<boolean> {
  const publicKey = toKeyObject(key.publicKey)
  const isGood = await Promise.all([
    ...pkcs1Hashes.map((hash) => signature(run, key, `RSASSA_PKCS1_V1_5_${upper(hash)}`, hash, { key: publicKey })),
    ...pssHashes.map((hash) =>
      signature(run, key, `RSASSA_PSS_${upper(hash)}`, hash, {
        key: publicKey,
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
      }),
    ),
  ])
  return isGood.includes(true)
}

function signature(
  run: ProbeRun,
  key: ProbeKey,
  algorithm: string,
  hash: string,
  how: { key: KeyObject; padding?: number; saltLength?: number; dsaEncoding?: 'ieee-p1363' },
): Promise<boolean> {
  return run.prove(algorithm, async () => {
    const data = randomBytes(100)
    const digest = createHash(hash).update(data).digest()
    const name = algorithm as SignAlgorithm
    return verify(hash, data, how, await run.parts.signing.sign(run.call, key.ref, name, digest))
  })
}

async function oaep(run: ProbeRun, key: ProbeKey): Promise<boolean> {
  const publicKey = toKeyObject(key.publicKey)
  const isGood: boolean[] = []
  for (const algorithm of ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const) {
    isGood.push(
      await run.prove(algorithm, async () => {
        const data = randomBytes(64)
        const sealed = oaepEncrypt(publicKey, oaepEntries[algorithm].hash, data)
        const open = (bytes: Buffer) =>
          run.parts.cipher.decrypt(run.call, key.ref, algorithm, {
            prefix: noBytes,
            context: noBytes,
            data: bytes,
          })
        if (!(await open(sealed)).equals(data)) return false
        const other = oaepEncrypt(publicKey, algorithm === 'RSAES_OAEP_SHA_1' ? 'sha256' : 'sha1', data)
        return isRefused(() => open(other))
      }),
    )
  }
  const { oaepSha256 } = run.parts.facts
  if (isGood[1] && (oaepSha256 === 'native' || oaepSha256 === 'raw')) run.oaepSha256 = oaepSha256
  if (run.oaepSha256 === 'raw') run.refuse('RSAES_OAEP_SHA_256 in the module', 'raw RSA, decoded in the worker')
  return isGood.includes(true)
}

async function rsaUnwrap(run: ProbeRun, key: ProbeKey): Promise<boolean> {
  const publicKey = toKeyObject(key.publicKey)
  const oaep = await run.prove('UNWRAP RSAES_OAEP_SHA_1', async () => {
    const value = randomBytes(32)
    return unwrapsTo(run, key, 'RSAES_OAEP_SHA_1', oaepEncrypt(publicKey, 'sha1', value), value)
  })
  await run.prove('UNWRAP RSAES_OAEP_SHA_256', async () => {
    // what this process would see does not count, whether or not the operator allows it
    if (run.parts.facts.oaepSha256 === 'raw') return 'raw RSA: the imported key passes through the worker'
    const value = randomBytes(32)
    return unwrapsTo(run, key, 'RSAES_OAEP_SHA_256', oaepEncrypt(publicKey, 'sha256', value), value)
  })
  for (const [algorithm, hash] of [
    ['RSA_AES_KEY_WRAP_SHA_1', 'sha1'],
    ['RSA_AES_KEY_WRAP_SHA_256', 'sha256'],
  ] as const) {
    await run.prove(algorithm, async () => {
      const value = randomBytes(32)
      const aes = randomBytes(32)
      const wrapped = Buffer.concat([oaepEncrypt(publicKey, hash, aes), wrapWithPadding(aes, value)])
      return unwrapsTo(run, key, algorithm, wrapped, value)
    })
  }
  return oaep
}

/** The unwrapped key is the one that was wrapped: its MAC is that of the known value. */
async function unwrapsTo(
  run: ProbeRun,
  key: ProbeKey,
  algorithm: 'RSAES_OAEP_SHA_1' | 'RSAES_OAEP_SHA_256' | 'RSA_AES_KEY_WRAP_SHA_1' | 'RSA_AES_KEY_WRAP_SHA_256',
  wrapped: Buffer,
  value: Buffer,
): Promise<boolean> {
  const intent = sessionIntent('HMAC_256', 'GENERATE_VERIFY_MAC', 'kms')
  const created = await run.parts.creating.unwrapSession(run.call, key.ref, algorithm, wrapped, intent)
  const { ref } = run.track(intent, created)
  const message = randomBytes(40)
  const mac = await run.parts.signing.mac(run.call, ref, 'HMAC_SHA_256', message)
  return mac.equals(createHmac('sha256', value).update(message).digest())
}

export async function probeCurves(run: ProbeRun): Promise<void> {
  for (const spec of ecdsaCurves) {
    const signs = await run.generate(spec, 'SIGN_VERIFY')
    const usages: KeyUsage[] = []
    if (signs !== undefined && (await ecdsa(run, spec, signs))) usages.push('SIGN_VERIFY')
    if (keyShapes[spec]?.usages.includes('KEY_AGREEMENT') && (await agreement(run, spec))) usages.push('KEY_AGREEMENT')
    if (usages.length > 0) run.specs[spec] = usages
  }
}

/** With the hash that the API pairs with the curve. A curve that fails takes no other curve with it. */
async function ecdsa(run: ProbeRun, spec: (typeof ecdsaCurves)[number], key: ProbeKey): Promise<boolean> {
  const how = { key: toKeyObject(key.publicKey), dsaEncoding: 'ieee-p1363' } as const
  const isGood = await run.prove(
    `ECDSA with ${spec}`,
    async () => {
      const data = randomBytes(100)
      const digest = createHash(curveHashes[spec]).update(data).digest()
      return verify(curveHashes[spec], data, how, await run.parts.signing.sign(run.call, key.ref, 'ECDSA', digest))
    },
    false,
  )
  if (isGood) run.algorithms.add('ECDSA')
  return isGood
}

async function agreement(run: ProbeRun, spec: KeySpec): Promise<boolean> {
  const agrees = await run.generate(spec, 'KEY_AGREEMENT')
  if (agrees === undefined) return false
  const isGood = await run.prove(
    `ECDH with ${spec}`,
    async () => {
      const namedCurve = keyShapes[spec]?.curve?.node as string
      const peer = generateKeyPairSync('ec', { namedCurve })
      const expected = diffieHellman({ privateKey: peer.privateKey, publicKey: toKeyObject(agrees.publicKey) })
      const peerSpki = peer.publicKey.export({ format: 'der', type: 'spki' })
      const secret = await run.parts.signing.derive(run.call, agrees.ref, peerSpki)
      const isSame = secret.equals(expected)
      secret.fill(0)
      return isSame
    },
    false,
  )
  if (isGood) run.algorithms.add('ECDH')
  return isGood
}

export async function probeEdwards(run: ProbeRun): Promise<void> {
  const key = await run.generate('ECC_NIST_EDWARDS25519', 'SIGN_VERIFY')
  if (key === undefined) return
  const publicKey = toKeyObject(key.publicKey)
  const { signing } = run.parts
  const isPure = await run.prove('ED25519', async () => {
    const message = randomBytes(100)
    return verify(null, message, publicKey, await signing.sign(run.call, key.ref, 'ED25519', message))
  })
  await run.prove('ED25519_PH', async () => {
    const digest = randomBytes(64)
    const signature = await signing.sign(run.call, key.ref, 'ED25519_PH', digest)
    if (verify(null, digest, publicKey, signature)) return 'phFlag is ignored: a plain Ed25519 signature came back'
    return loadAddon().verifySignature(signatureScheme.ed25519ph, '', key.publicKey, digest, signature)
  })
  if (isPure) run.specs.ECC_NIST_EDWARDS25519 = ['SIGN_VERIFY']
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
