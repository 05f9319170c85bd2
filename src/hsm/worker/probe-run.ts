/**
 * One run of the capability probe: the session keys it made, what is proven, what is refused and why. Trouble of the moment is thrown: it
 * says nothing about what the token can do.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import type { Capabilities, GenerateIntent, KeySpec, KeyUsage } from '../port.ts'
import type { Cipher } from './cipher.ts'
import type { Created, Creating } from './creating.ts'
import type { DataKeyPairs } from './data-key-pairs.ts'
import type { Facts } from './facts.ts'
import { CallFailure } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import { keyShapes } from './key-shapes.ts'
import type { KeyRef, Objects } from './objects.ts'
import type { Signing } from './signing.ts'
import type { WorkingKeys } from './working-keys.ts'

export interface ProbeParts {
  readonly jobs: Jobs
  readonly objects: Objects
  readonly facts: Facts
  readonly creating: Creating
  readonly pairs: DataKeyPairs
  readonly signing: Signing
  readonly cipher: Cipher
  readonly workingKeys: WorkingKeys
}

export interface ProbeKey {
  readonly ref: KeyRef
  readonly publicKey: Buffer
}

const noBytes = Buffer.alloc(0)

export class ProbeRun {
  readonly parts: ProbeParts
  readonly call: Call
  readonly keys: KeyRef[] = []
  readonly algorithms = new Set<string>()
  readonly specs: Partial<Record<KeySpec, readonly KeyUsage[]>> = {}
  readonly refused: { what: string; why: string }[] = []
  oaepSha256: Capabilities['oaepSha256'] = 'none'

  constructor(parts: ProbeParts, call: Call) {
    this.parts = parts
    this.call = call
  }

  async generate(
    spec: KeySpec,
    usage: KeyUsage,
    purpose: 'kms' | 'system' = 'kms',
    exportable = false,
  ): Promise<ProbeKey | undefined> {
    const intent = { ...sessionIntent(spec, usage, purpose), exportable }
    let key: ProbeKey | undefined
    await this.prove(
      `${spec} for ${usage}`,
      async () => {
        key = this.track(intent, await this.parts.creating.generateSession(this.call, intent))
        return true
      },
      false,
    )
    return key
  }

  track(intent: GenerateIntent, { session, construction, publicKey }: Created): ProbeKey {
    const { purpose, spec } = intent
    const shape = keyShapes[spec] as NonNullable<(typeof keyShapes)[KeySpec]>
    const name = `#${session}`
    const sealName = `${purpose} ${name}`
    const ref = { purpose, spec, shape, construction, session, objectId: noBytes, label: '', name, sealName }
    this.keys.push(ref)
    return { ref, publicKey }
  }

  /** Records the algorithm as proven, or why not; a text is a reason. An algorithm once disproven stays so. */
  async prove(what: string, attempt: () => Promise<boolean | string>, isAlgorithm = true): Promise<boolean> {
    for (let left = 1; ; left--) {
      try {
        const answer = await attempt()
        if (answer !== true) {
          this.refuse(what, typeof answer === 'string' ? answer : 'the answer does not verify in software')
          return false
        }
        if (isAlgorithm && !this.refused.some((refused) => refused.what === what)) this.algorithms.add(what)
        return true
      } catch (error) {
        if (!(error instanceof CallFailure) || isOfTheMoment(error)) throw error
        if (error.failure.action === 'S' && left > 0) continue
        this.refuse(what, error.failure.detail)
        return false
      }
    }
  }

  refuse(what: string, why: string): void {
    this.algorithms.delete(what)
    if (!this.refused.some((refused) => refused.what === what)) this.refused.push({ what, why })
  }
}

export async function isRefused(open: () => Promise<Buffer>): Promise<boolean> {
  try {
    ;(await open()).fill(0)
    return false
  } catch (error) {
    if (error instanceof CallFailure && error.failure.code === 'CiphertextInvalid') return true
    throw error
  }
}

/** Nothing that the token can't do: it could not do it now. */
export function isOfTheMoment({ failure }: CallFailure): boolean {
  return failure.code === 'DeadlineExceeded' || ['T', 'D', 'I', 'L', 'O', 'H'].includes(failure.action)
}

export function sessionIntent(spec: KeySpec, usage: KeyUsage, purpose: 'kms' | 'system'): GenerateIntent {
  const objectId = randomBytes(16)
  return { group: '', spec, usage, purpose, objectId, keyId: randomUUID(), number: 0, residence: 'session' }
}
