/**
 * Why a call ended inside a worker: what the failure frame carries, as something that can be thrown. It never leaves the process;
 * the gateway side turns the frame into a GatewayError. `detail` is for the operator's log and never holds input or key material.
 */
import type { ErrorCode } from '../../error.ts'
import type { OperationName, WorkerFailure } from '../frames.ts'
import type { Action } from './action.ts'
import type { Profile } from './profiles.ts'
import { judge, rvName } from './rv.ts'

export class CallFailure extends Error {
  readonly failure: WorkerFailure

  constructor(failure: WorkerFailure) {
    super(failure.detail)
    this.name = 'CallFailure'
    this.failure = failure
  }
}

/** The worker itself says no: no call reached the module. */
export function refusal(code: ErrorCode, detail: string, action: Action = 'A'): CallFailure {
  return new CallFailure({ code, action, rv: 0, call: '', detail })
}

/** The module said no. */
export function rvFailure(rv: number, call: string, operation: OperationName, profile: Profile): CallFailure {
  const { action, code } = judge(rv, { call, operation, profile })
  return new CallFailure({ code, action, rv, call, detail: `${call}: ${rvName(rv)}` })
}

/** Anything thrown, as a failure frame; what is not modelled names its class only, since a message could quote input. */
export function toFailure(error: unknown): WorkerFailure {
  if (error instanceof CallFailure) return error.failure
  const kind = error instanceof Error ? error.name : typeof error
  return { code: 'Internal', action: 'B', rv: 0, call: '', detail: `worker fault: ${kind}` }
}
