/** The probe's proof that the module can hand out a pair that it generated; the halves are compared where it is opened. */
import type { KeySpec } from '../port.ts'
import { CKM } from './cryptoki.ts'
import { keyShapes } from './key-shapes.ts'
import type { ProbeRun } from './probe-run.ts'

const rsaSpecs = ['RSA_2048', 'RSA_3072', 'RSA_4096'] as const
const curves = ['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521', 'ECC_SECG_P256K1', 'ECC_NIST_EDWARDS25519'] as const

/** Adds `DATA_KEY_PAIR <spec>` to the proven algorithms. One RSA size speaks for all, since generating takes its time. */
export async function probeDataKeyPairs(run: ProbeRun): Promise<void> {
  for (const spec of curves) await handsOut(run, spec)
  if (!(await handsOut(run, 'RSA_2048'))) return
  const maxBits = run.parts.facts.mechanisms.get(CKM.rsaPkcsKeyPairGen)?.maxKeySize ?? 0
  for (const spec of rsaSpecs) {
    if ((keyShapes[spec]?.modulusBits as number) <= maxBits) run.algorithms.add(`DATA_KEY_PAIR ${spec}`)
  }
}

function handsOut(run: ProbeRun, spec: KeySpec): Promise<boolean> {
  return run.prove(`DATA_KEY_PAIR ${spec}`, async () => {
    const { publicKey, privateKey } = await run.parts.pairs.generate(run.call, spec)
    privateKey.fill(0)
    return publicKey.length > 0
  })
}
