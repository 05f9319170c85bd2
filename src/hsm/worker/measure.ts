/**
 * Rates of a token and its conduct under several sessions at once, by the worker's own code on session keys of its own. Bounded in time: it
 * is for orientation and the size of the pool, not a benchmark. Everything made is destroyed.
 */
import { createHash, createPublicKey, randomBytes, verify } from 'node:crypto'
import type { Concurrency, Measurement, Rate } from '../examination.ts'
import { jobOp } from './addon.ts'
import { CallFailure } from './failure.ts'
import { tryIvs } from './iv-conduct.ts'
import { type Call, openCall } from './jobs.ts'
import type { ProbeKey, ProbeRun } from './probe-run.ts'
import { rvName } from './rv.ts'

interface Work {
  readonly what: string
  /** Once; `call` carries the time spent in the module. False: the answer does not verify. Checks only where `checks`. */
  readonly use: (call: Call, checks: boolean) => Promise<boolean>
}

/** Operations of each kind in the trial of concurrency, for each session. */
const trialsEach = 12
const noContext = Buffer.alloc(0)

/** `sessions` is the size of the worker's pool. @throws CallFailure when the time of the call is over. */
export async function measureToken(run: ProbeRun, sessions: number, durationMs: number): Promise<Measurement> {
  const { jobs, facts } = run.parts
  const ivs = facts.gcmIv === 'none' ? null : await tryIvs(jobs, run.call)
  const works = await prepare(run)
  const concurrency = await tryConcurrency(run.call, works, sessions)
  const widths = widthsUpTo(sessions)
  const sliceMs = durationMs / Math.max(1, works.length * widths.length)
  const rates: Rate[] = []
  for (const work of works) rates.push(await rateOf(run.call, work, widths, sliceMs))
  return { ivs, concurrency, rates }
}

/** What the token can do of these; the rest is not measured. */
async function prepare(run: ProbeRun): Promise<readonly Work[]> {
  const { signing, cipher, jobs, facts } = run.parts
  const works: Work[] = []
  const sign = (what: string, key: ProbeKey, algorithm: 'ECDSA' | 'RSASSA_PKCS1_V1_5_SHA_256') => {
    const publicKey = createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' })
    const message = randomBytes(64)
    const digest = createHash('sha256').update(message).digest()
    works.push({
      what,
      async use(call, checks) {
        const signature = await signing.sign(call, key.ref, algorithm, digest)
        return !checks || verify('sha256', message, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature)
      },
    })
  }
  const rsa = await run.generate('RSA_2048', 'SIGN_VERIFY')
  if (rsa !== undefined) sign('RSA-2048 sign', rsa, 'RSASSA_PKCS1_V1_5_SHA_256')
  const ec = await run.generate('ECC_NIST_P256', 'SIGN_VERIFY')
  if (ec !== undefined) sign('P-256 sign', ec, 'ECDSA')

  const aes = facts.gcmIv === 'none' ? undefined : await run.generate('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
  if (aes !== undefined) {
    const { ref } = aes
    works.push({
      what: 'AES-256-GCM encrypt 32 B',
      async use(call, checks) {
        const data = randomBytes(32)
        const input = { prefix: noContext, context: noContext, data: Buffer.from(data) }
        const sealed = await cipher.encrypt(call, ref, 'SEAL', input, jobOp.encrypt)
        if (!checks) return true
        const opened = await cipher.decrypt(call, ref, 'SEAL', { ...input, data: sealed })
        return opened.equals(data)
      },
    })
  }
  const hmac = await run.generate('HMAC_256', 'GENERATE_VERIFY_MAC')
  if (hmac !== undefined) {
    const message = randomBytes(64)
    const expected = await signing.mac(run.call, hmac.ref, 'HMAC_SHA_256', message).catch(() => undefined)
    if (expected !== undefined) {
      works.push({
        what: 'HMAC-SHA-256 64 B',
        use: async (call) => (await signing.mac(call, hmac.ref, 'HMAC_SHA_256', message)).equals(expected),
      })
    }
  }
  works.push({
    what: 'random 32 B',
    use: async (call) => (await jobs.need(call, jobOp.random, { outMax: 32 })).output?.length === 32,
  })
  return works
}

/** All kinds mixed on all sessions, every answer checked. */
async function tryConcurrency(call: Call, works: readonly Work[], sessions: number): Promise<Concurrency> {
  let operations = 0
  let wrong = 0
  const failed: Record<string, number> = {}
  const lane = async (first: number): Promise<void> => {
    for (let i = 0; i < works.length * trialsEach; i++) {
      const work = works[(first + i) % works.length] as Work
      operations++
      try {
        if (!(await work.use(call, true))) wrong++
      } catch (error) {
        if (!(error instanceof CallFailure) || error.failure.code === 'DeadlineExceeded') throw error
        const name = rvName(error.failure.rv)
        failed[name] = (failed[name] ?? 0) + 1
      }
    }
  }
  await Promise.all(Array.from({ length: sessions }, (_, first) => lane(first)))
  return { sessions, operations, wrong, failed }
}

/** 1, 2, 4, .. and the pool's own size. */
function widthsUpTo(sessions: number): number[] {
  const widths: number[] = []
  for (let width = 1; width < sessions; width *= 2) widths.push(width)
  return [...widths, sessions]
}

async function rateOf(call: Call, work: Work, widths: readonly number[], sliceMs: number): Promise<Rate> {
  const perSecond: { sessions: number; rate: number }[] = []
  let hsmMicros = 0
  for (const width of widths) {
    const timed = openCall(call.operation, call.endsAtMs - performance.now())
    const startedAtMs = performance.now()
    const endsAtMs = startedAtMs + sliceMs
    let done = 0
    const lane = async (): Promise<void> => {
      do {
        // a refusal says nothing about the rate; the trial of concurrency has counted it
        if (await work.use(timed, false).catch(isOver)) done++
      } while (performance.now() < endsAtMs)
    }
    await Promise.all(Array.from({ length: width }, lane))
    perSecond.push({ sessions: width, rate: Math.round((done * 1000) / (performance.now() - startedAtMs)) })
    if (width === 1) hsmMicros = Math.round(timed.hsmMicros / Math.max(1, done))
  }
  return { what: work.what, hsmMicros, perSecond }
}

function isOver(error: unknown): false {
  if (error instanceof CallFailure && error.failure.code !== 'DeadlineExceeded') return false
  throw error
}
