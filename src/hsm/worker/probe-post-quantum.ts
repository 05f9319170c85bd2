/**
 * The probe's proofs of ML-DSA (FIPS 204) and ML-KEM (FIPS 203): signatures are verified, and secrets encapsulated, by the OpenSSL of Node.
 * Modules have them from PKCS#11 3.2 on; the mechanism for an external mu is younger still.
 */
import { createHash, createPublicKey, encapsulate, randomBytes } from 'node:crypto'
import type { KeySpec } from '../port.ts'
import { loadAddon, signatureScheme } from './addon.ts'
import { CKM } from './cryptoki.ts'
import type { ParameterSet } from './key-shapes.ts'
import type { ProbeKey, ProbeRun } from './probe-run.ts'

const mlDsaSpecs = ['ML_DSA_44', 'ML_DSA_65', 'ML_DSA_87'] as const
const mlKemSpecs = ['ML_KEM_512', 'ML_KEM_768', 'ML_KEM_1024'] as const
const muBytes = 64

export async function probePostQuantum(run: ProbeRun): Promise<void> {
  if (hasMechanisms(run, mlDsaSpecs, [CKM.mlDsaKeyPairGen, CKM.mlDsa])) {
    for (const spec of mlDsaSpecs) await mlDsa(run, spec)
  }
  if (hasMechanisms(run, mlKemSpecs, [CKM.mlKemKeyPairGen, CKM.mlKem])) {
    for (const spec of mlKemSpecs) await mlKem(run, spec)
  }
}

function hasMechanisms(run: ProbeRun, specs: readonly KeySpec[], mechanisms: readonly number[]): boolean {
  if (mechanisms.every((mechanism) => run.parts.facts.mechanisms.has(mechanism))) return true
  for (const spec of specs) run.refuse(spec, 'the module has no such mechanism (PKCS#11 3.2)')
  return false
}

async function mlDsa(run: ProbeRun, spec: KeySpec): Promise<void> {
  const key = await run.generate(spec, 'SIGN_VERIFY')
  if (key === undefined) return
  const { signing } = run.parts
  const message = randomBytes(100)
  const verifies = (signature: Buffer): Promise<boolean> =>
    loadAddon().verifySignature(signatureScheme.mlDsa, '', key.publicKey, message, signature)
  const isGood = await run.prove(
    `ML_DSA with ${spec}`,
    async () => verifies(await signing.sign(run.call, key.ref, 'ML_DSA', message)),
    false,
  )
  if (!isGood) return
  run.specs[spec] = ['SIGN_VERIFY']
  run.algorithms.add('ML_DSA')
  if (!run.parts.facts.mechanisms.has(CKM.mlDsaExternalMu)) {
    run.refuse('ML_DSA_MU', 'the module has no mechanism for an external mu')
    return
  }
  // what is signed by way of mu is a signature of the message like any other
  const mu = messageRepresentative(key, message)
  await run.prove('ML_DSA_MU', async () => verifies(await signing.sign(run.call, key.ref, 'ML_DSA_MU', mu)))
}

/** mu of FIPS 204 section 6.2, with an empty context. */
function messageRepresentative({ ref, publicKey }: ProbeKey, message: Uint8Array): Buffer {
  const { publicBytes } = ref.shape.parameters as ParameterSet
  const shake = (...parts: readonly Uint8Array[]): Buffer => {
    const hash = createHash('shake256', { outputLength: muBytes })
    for (const part of parts) hash.update(part)
    return hash.digest()
  }
  return shake(shake(publicKey.subarray(-publicBytes)), Buffer.from([0, 0]), message)
}

async function mlKem(run: ProbeRun, spec: KeySpec): Promise<void> {
  const key = await run.generate(spec, 'ENCAPSULATE_DECAPSULATE')
  if (key === undefined) return
  const { node } = key.ref.shape.parameters as ParameterSet
  const isGood = await run.prove(
    `ML_KEM with ${spec}`,
    async () => {
      const publicKey = createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' })
      if (publicKey.asymmetricKeyType !== node) return `the public key is one of ${publicKey.asymmetricKeyType}`
      const { ciphertext, sharedKey } = encapsulate(publicKey)
      const open = (bytes: Buffer): Promise<Buffer> => run.parts.signing.decapsulate(run.call, key.ref, bytes)
      const tampered = Buffer.from(ciphertext)
      tampered[0] = (tampered[0] as number) ^ 1
      const [secret, other, again] = await Promise.all([open(ciphertext), open(tampered), open(tampered)])
      const isSame = secret.equals(sharedKey)
      // implicit rejection (FIPS 203 section 6.3): another secret, always the same one
      const isRejected = !other.equals(sharedKey) && other.equals(again)
      for (const bytes of [secret, other, again, sharedKey]) bytes.fill(0)
      if (!isSame) return false
      return isRejected || 'a changed ciphertext is not rejected as FIPS 203 says'
    },
    false,
  )
  if (!isGood) return
  run.specs[spec] = ['ENCAPSULATE_DECAPSULATE']
  run.algorithms.add('ML_KEM')
}
