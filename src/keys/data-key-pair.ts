/**
 * Key pairs for callers to keep (GenerateDataKeyPair). The module generates those that its probe showed it can hand out; the others come from
 * Node's OpenSSL. Both as DER: SubjectPublicKeyInfo and PKCS#8, ML-KEM as the seed alone (RFC 9935 section 6).
 */
import { createPrivateKey, createPublicKey, generateKeyPair, type KeyPairKeyObjectResult } from 'node:crypto'
import { promisify } from 'node:util'
import type { Deadline } from '../call.ts'
import { GatewayError } from '../error.ts'
import type { Hsm, KeySpec } from '../hsm/port.ts'

export interface DataKeyPair {
  readonly publicKey: Buffer
  /** Secret: the caller wipes it. */
  readonly privateKey: Buffer
}

const generate = promisify(generateKeyPair as (type: string, options: object, done: PairCallback) => void)
type PairCallback = (error: Error | null, publicKey: KeyObjectOf<'publicKey'>, privateKey: unknown) => void
type KeyObjectOf<K extends keyof KeyPairKeyObjectResult> = KeyPairKeyObjectResult[K]

/** `generateKeyPair` of node:crypto by spec. */
const recipes: Readonly<Partial<Record<KeySpec, readonly [type: string, options: object]>>> = {
  RSA_2048: ['rsa', { modulusLength: 2048 }],
  RSA_3072: ['rsa', { modulusLength: 3072 }],
  RSA_4096: ['rsa', { modulusLength: 4096 }],
  ECC_NIST_P256: ['ec', { namedCurve: 'P-256' }],
  ECC_NIST_P384: ['ec', { namedCurve: 'P-384' }],
  ECC_NIST_P521: ['ec', { namedCurve: 'P-521' }],
  ECC_SECG_P256K1: ['ec', { namedCurve: 'secp256k1' }],
  ECC_NIST_EDWARDS25519: ['ed25519', {}],
  ML_KEM_512: ['ml-kem-512', {}],
  ML_KEM_768: ['ml-kem-768', {}],
  ML_KEM_1024: ['ml-kem-1024', {}],
}

export function isPairSpec(spec: string): spec is KeySpec {
  return Object.hasOwn(recipes, spec)
}

/** @throws GatewayError `Unsupported` for a spec that has no pairs; of the HSM layer. */
export async function generateDataKeyPair(
  hsm: Hsm,
  group: string,
  spec: KeySpec,
  deadline: Deadline,
): Promise<DataKeyPair> {
  if (hsm.capabilities(group).algorithms.includes(`DATA_KEY_PAIR ${spec}`)) {
    return hsm.generateDataKeyPair(group, spec, deadline)
  }
  const recipe = recipes[spec]
  if (recipe === undefined) throw new GatewayError('Unsupported', {})
  const { publicKey, privateKey } = (await generate(...recipe)) as unknown as KeyPairKeyObjectResult
  const pkcs8 = privateKey.export({ format: 'der', type: 'pkcs8' })
  return {
    publicKey: publicKey.export({ format: 'der', type: 'spki' }),
    privateKey: spec.startsWith('ML_KEM_') ? seedForm(pkcs8) : pkcs8,
  }
}

const mlKemSeedBytes = 64
/** SEQUENCE { version 0, AlgorithmIdentifier { 2.16.840.1.101.3.4.4.x } } of an ML-KEM PKCS#8, after the outer header. */
const mlKemHeaderBytes = 3 + 13

/** The seed as [0] OCTET STRING, out of OpenSSL's form with both seed and expanded key: SEQUENCE { seed, expandedKey }. */
function seedForm(pkcs8: Buffer): Buffer {
  const header = pkcs8.subarray(4, 4 + mlKemHeaderBytes)
  // OCTET STRING, SEQUENCE and the seed's OCTET STRING header, the first two with lengths of two bytes
  const start = 4 + mlKemHeaderBytes + 4 + 4 + 2
  const seed = pkcs8.subarray(start, start + mlKemSeedBytes)
  const form = Buffer.concat([
    Buffer.from([0x30, header.length + 4 + mlKemSeedBytes]),
    header,
    Buffer.from([0x04, 2 + mlKemSeedBytes, 0x80, mlKemSeedBytes]),
    seed,
  ])
  const spki = (key: Buffer) =>
    createPublicKey(createPrivateKey({ key, format: 'der', type: 'pkcs8' })).export({ format: 'der', type: 'spki' })
  const isSame = spki(form).equals(spki(pkcs8))
  pkcs8.fill(0)
  if (!isSame) throw new GatewayError('Internal', undefined, { detail: 'the seed of an ML-KEM key gives another key' })
  return form
}
