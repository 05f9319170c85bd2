import type { Capabilities } from '../port.ts'
import type { Facts } from './facts.ts'
import type { Call, Jobs } from './jobs.ts'

export async function probeToken(_jobs: Jobs, _call: Call, _facts: Facts): Promise<Capabilities> {
  throw new TypeError('not yet')
}
