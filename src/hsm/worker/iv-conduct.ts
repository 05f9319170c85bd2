/**
 * How a module treats the IVs of AES-GCM, tried on a session key: whether it uses the one it is given, what it makes of zeros, and whether
 * the ones that it makes repeat. Answers only; facts.ts decides on its own proof what the gateway does.
 */
import { randomBytes } from 'node:crypto'
import type { IvConduct } from '../examination.ts'
import { jobOp } from './addon.ts'
import { CKA, CKK, CKM } from './cryptoki.ts'
import type { Call, JobResult, Jobs } from './jobs.ts'
import { encodeParams, encodeTemplate } from './pack.ts'
import { sessionSecretTemplate } from './templates.ts'

const ivBytes = 12
const drawn = 256

/** `null` when the module has no key for it. */
export async function tryIvs(jobs: Jobs, call: Call): Promise<IvConduct | null> {
  const aux = encodeTemplate(sessionSecretTemplate(CKK.aes, 32, [CKA.encrypt, CKA.decrypt]))
  const { rv, handle } = await jobs.attempt(call, jobOp.generateKey, { mechanism: CKM.aesKeyGen, aux })
  if (rv !== 0) return null
  try {
    return {
      given: await tryGiven(jobs, call, handle),
      zero: await tryZero(jobs, call, handle),
      made: await tryMade(jobs, call, handle),
      drawn,
    }
  } finally {
    jobs.discard(handle)
  }
}

const data = Buffer.from('hsmgate examines initialisation vectors')

function gcm(
  jobs: Jobs,
  call: Call,
  decrypts: boolean,
  key: bigint,
  iv: Buffer,
  input: Buffer,
  ivMode: 'given' | 'module',
) {
  const params = encodeParams({ kind: 'gcm', iv, ivMode })
  const job = { mechanism: CKM.aesGcm, key, params, input, outMax: input.length + 32 }
  return jobs.attempt(call, decrypts ? jobOp.decrypt : jobOp.encrypt, job)
}

const encrypt = (jobs: Jobs, call: Call, key: bigint, iv: Buffer): Promise<JobResult> =>
  gcm(jobs, call, false, key, iv, data, 'given')

async function tryGiven(jobs: Jobs, call: Call, key: bigint): Promise<IvConduct['given']> {
  const [iv, otherIv] = [randomBytes(ivBytes), randomBytes(ivBytes)]
  const one = await encrypt(jobs, call, key, iv)
  const other = await encrypt(jobs, call, key, otherIv)
  if (one.rv !== 0 || other.rv !== 0 || one.output === null || other.output === null) return 'refused'
  const back = await gcm(jobs, call, true, key, iv, one.output, 'given')
  return back.output?.equals(data) && !one.output.equals(other.output) ? 'used' : 'ignored'
}

async function tryZero(jobs: Jobs, call: Call, key: bigint): Promise<IvConduct['zero']> {
  const one = await encrypt(jobs, call, key, Buffer.alloc(ivBytes))
  const two = await encrypt(jobs, call, key, Buffer.alloc(ivBytes))
  if (one.rv !== 0 || two.rv !== 0 || one.output === null || two.output === null) return 'refused'
  return one.output.equals(two.output) ? 'used' : 'replaced'
}

/** With `module` the output begins with the IV as it stands in the parameters after the call. */
export async function tryMade(jobs: Jobs, call: Call, key: bigint): Promise<IvConduct['made']> {
  const ivs = new Set<string>()
  for (let i = 0; i < drawn; i++) {
    const { rv, output } = await gcm(jobs, call, false, key, Buffer.alloc(ivBytes), data, 'module')
    if (rv !== 0 || output === null) return 'refused'
    const iv = output.subarray(0, ivBytes)
    if (iv.every((byte) => byte === 0)) return 'zero'
    ivs.add(iv.toString('hex'))
  }
  return ivs.size === drawn ? 'distinct' : 'repeated'
}
