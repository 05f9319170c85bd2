/**
 * The capability probe: makes a session key of every spec through the worker's own code, uses it in every way that the API offers, and
 * verifies each answer in software. A module that answers wrongly is as good as one that refuses. Everything made is destroyed.
 */
import { probeVersion } from '../frames.ts'
import type { Capabilities } from '../port.ts'
import { jobOp } from './addon.ts'
import { destroySessionObject } from './describe.ts'
import { constructionOfFacts } from './facts.ts'
import { type Call, openCall } from './jobs.ts'
import { probeCurves, probeEdwards, probeRsa } from './probe-asymmetric.ts'
import { probeDataKeyPairs } from './probe-data-key-pairs.ts'
import { probePostQuantum } from './probe-post-quantum.ts'
import { type ProbeParts, ProbeRun } from './probe-run.ts'
import { probeHmac, probeSymmetric } from './probe-symmetric.ts'

const randomBytesDrawn = 64
const destroyBudgetMs = 30_000

/** @throws CallFailure when the token is in trouble or the time is over: nothing is proven then. */
export async function probeToken(parts: ProbeParts, call: Call): Promise<Capabilities> {
  const run = new ProbeRun(parts, call)
  try {
    const isRandom = await drawsRandom(run)
    // RSA generation is what takes the time; the rest fits beside it
    const probes = [
      probeRsa(run),
      probeCurves(run),
      probeEdwards(run),
      probeHmac(run),
      probeSymmetric(run),
      probeDataKeyPairs(run),
      probePostQuantum(run),
    ]
    for (const probe of await Promise.allSettled(probes)) if (probe.status === 'rejected') throw probe.reason
    return {
      probe: probeVersion,
      // a token without randomness makes no keys worth having
      specs: isRandom ? run.specs : {},
      algorithms: isRandom ? [...run.algorithms] : [],
      oaepSha256: run.oaepSha256,
      construction: run.algorithms.has('SEAL') ? constructionOfFacts(parts.facts) : 'none',
      gcmIv: parts.facts.gcmIv,
      refused: [...parts.facts.refused, ...run.refused],
    }
  } finally {
    await destroyAll(run)
  }
}

/** Ends a run, in time of its own: a probe that ran out of time leaves nothing behind either. */
export async function destroyAll({ parts, keys }: ProbeRun): Promise<void> {
  const { jobs, objects, workingKeys } = parts
  const call = openCall('probe', destroyBudgetMs)
  const names = new Set(keys.map(({ name }) => name))
  workingKeys.forget((name) => names.has(name))
  for (const key of keys) await destroySessionObject(jobs, objects, call, key).catch(() => {})
}

function drawsRandom(run: ProbeRun): Promise<boolean> {
  const draw = () => run.parts.jobs.need(run.call, jobOp.random, { outMax: randomBytesDrawn })
  return run.prove(
    'random',
    async () => {
      const [one, two] = (await Promise.all([draw(), draw()])).map(({ output }) => output as Buffer) as [Buffer, Buffer]
      return one.length === randomBytesDrawn && !one.equals(two) && new Set(one).size > randomBytesDrawn / 4
    },
    false,
  )
}
