/** Who is examined, how, and what came of it: the nouns of the doctor. Plain JSON values. */
import type { Problem } from '../problem.ts'
import type { Measurement, ModuleFacts } from './examination.ts'
import type { SuggestedPool } from './pool-size.ts'
import type { Capabilities, ObjectSummary } from './port.ts'
import type { TokenConfig } from './token-config.ts'

export interface Patient
  extends Pick<TokenConfig, 'module' | 'initArgs' | 'label' | 'serial' | 'cryptoUser' | 'profile'> {
  /** Name in the configuration, where it has one. */
  readonly name?: string
  /** Without it nothing that needs a login is tried. */
  readonly pinFile?: string
  /** The whole environment of the workers. */
  readonly env: Readonly<Record<string, string>>
}

export interface DoctorOptions {
  /** Where refused PINs are remembered; the gateway's own state folder for its tokens. */
  readonly latchDirectory: string
  /** How long one step may take before its process is killed. */
  readonly stepLimitMs: number
  /** Sessions to measure with at most; default 8. */
  readonly sessions?: number
  /** Of the measurement as a whole, roughly; 0: nothing is measured. */
  readonly measureMs: number
  /** Program and arguments of a worker, when it is not hsmgate's own. */
  readonly workerCommand?: readonly string[]
}

export interface Diagnosis {
  readonly module: string
  readonly facts?: ModuleFacts
  readonly login: { readonly state: 'done' | 'not tried' | 'refused' | 'failed'; readonly why?: string }
  /** Sessions of the worker that was measured. */
  readonly sessions?: number
  readonly capabilities?: Capabilities
  readonly measurement?: Measurement
  readonly pool?: SuggestedPool
  /** Keys in the token; certificates and data are not looked at. */
  readonly objects?: readonly ObjectSummary[]
  /** What stands in the way of serving. */
  readonly problems: readonly Problem[]
  /** What an operator should know. */
  readonly warnings: readonly Problem[]
}

/** A diagnosis on its way: each step adds what it found. */
export type Draft = { -readonly [K in keyof Diagnosis]: Diagnosis[K] } & { problems: Problem[]; warnings: Problem[] }
