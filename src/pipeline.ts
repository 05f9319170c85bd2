/**
 * The one road of every call, whatever its door: authenticate, parse, resolve, authorize, perform, audit. Data goes one way.
 *
 * A result leaves only after its audit record was written; refusals and failures are recorded too. Calls whose caller could not be
 * authenticated are counted and logged at a limited rate instead, so that strangers can't fill the journal.
 */
import type { AuditedCall, Journal } from './audit/audit.ts'
import type { Authorizer } from './authorize/authorize.ts'
import type { Deadline, Decision, Demand, Door, Principal, Source } from './call.ts'
import { GatewayError, toGatewayError } from './error.ts'
import type { Locale } from './keys/keys.ts'

/** What an operation may use while it runs. */
export interface Scope extends Locale {
  readonly principal: Principal
  readonly requestId: string
  readonly source: Source
  readonly deadline: Deadline
}

/** Outcome of an operation's resolution: what must be allowed, and what it concerns. */
export interface Prepared<Resources> {
  readonly resources: Resources
  readonly demands: readonly Demand[]
  /** Replaces the usual AccessDenied, where AWS answers otherwise. */
  readonly denial?: (decision: Decision & { allowed: false }, demand: Demand) => GatewayError
}

/** One operation of one door, as data: a registry row. */
export interface Operation<Input = unknown, Resources = unknown, Output = unknown> {
  readonly name: string
  /** CloudTrail's readOnly: true for cryptographic and read calls. */
  readonly readOnly: boolean
  /** Whole budget of one call. */
  readonly timeoutMs: number
  /** Framework validation and cross-field rules that need no key. @throws GatewayError */
  parse(raw: unknown): Input
  /** Looks up what the request names. @throws GatewayError */
  prepare(input: Input, scope: Scope): Promise<Prepared<Resources>>
  perform(input: Input, resources: Resources, scope: Scope): Promise<Output>
  /** Wipes what is secret in a result that does not leave: its audit record could not be written. */
  discard?(output: Output): void
  /** Cryptographic operations: the keys that a successful call used. */
  uses?(resources: Resources): readonly UsedKey[]
  /** What the audit record says; must not contain secrets. `resources` and `output` are absent where the call failed earlier. */
  record(
    input: Input,
    resources?: Resources,
    output?: Output,
  ): Pick<AuditedCall, 'requestParameters' | 'responseElements' | 'resources' | 'additionalEventData'>
}

/** A key that a call used. */
export interface UsedKey {
  readonly account: string
  readonly region: string
  readonly keyId: string
}

/** Learns of every successful cryptographic call, after its record is written. Must not throw, and nobody waits for it. */
export type UsageListener = (
  key: UsedKey,
  use: { readonly operation: string; readonly at: number; readonly eventId: string; readonly requestId: string },
) => void

/** Bytes turned into a call by a door; nothing in it is trusted yet. */
export interface Call {
  readonly door: Door
  readonly operation: Operation
  readonly raw: unknown
  readonly requestId: string
  /** Epoch milliseconds. */
  readonly receivedAt: number
  readonly deadline: Deadline
  readonly source: Source
  readonly partition: string
  /** What log lines of the call carry besides; a door fills it in when it knows. Never a secret. */
  readonly trace?: Readonly<Record<string, string>>
  /** Evidence → who calls. @throws GatewayError of the Credentials and Signature codes. */
  authenticate(): Caller | Promise<Caller>
}

export interface Caller {
  readonly principal: Principal
  readonly region: string
  /** Asked again when work of this call leaves a queue. @throws GatewayError when the credential was withdrawn meanwhile. */
  readonly admit?: () => void
}

export type Outcome =
  | { readonly ok: true; readonly output: unknown }
  | { readonly ok: false; readonly error: GatewayError; readonly authenticated: boolean }

export interface PipelineObserver {
  callFinished(call: Call, outcome: Outcome, principal: Principal | undefined, milliseconds: number): void
  callUnauthenticated(call: Call, error: GatewayError): void
}

export interface PipelineParts {
  readonly authorizer: Authorizer
  readonly journal: Journal
  readonly observer: PipelineObserver
  readonly used?: UsageListener
  /** Whether what the gateway remembers of the catalog is recent enough to be relied on, where other gateways may change it. */
  readonly memory?: { readonly isCurrent: () => boolean; readonly whenCurrent: () => Promise<void> }
  /** Name and text of an error in the door's dialect, for the audit record. */
  readonly describeError: (door: Door, error: GatewayError) => { readonly code: string; readonly text: string }
}

export type Pipeline = (call: Call) => Promise<Outcome>

export function createPipeline(parts: PipelineParts): Pipeline {
  const { authorizer, journal, observer, describeError, memory } = parts
  const isCurrent = memory?.isCurrent ?? (() => true)

  return async function run(call) {
    const startedMs = performance.now()
    const { operation } = call
    let caller: Caller
    try {
      const answer = call.authenticate()
      caller = answer instanceof Promise ? await answer : answer
    } catch (cause) {
      const error = toGatewayError(cause)
      observer.callUnauthenticated(call, error)
      return { ok: false, error, authenticated: false }
    }

    const { principal, region, admit } = caller
    const scope: Scope = {
      partition: call.partition,
      account: principal.account,
      region,
      principal,
      requestId: call.requestId,
      source: call.source,
      deadline: admit === undefined ? call.deadline : { ...call.deadline, admit },
    }
    let input: unknown
    let parsed = false
    let resources: unknown
    let decidedBy: string | undefined
    const grantIds = new Set<string>()
    const granted: Demand[] = []
    let outcome: Outcome
    try {
      if (!isCurrent() && call.door !== 'operator') {
        await memory?.whenCurrent()
        // what was read meanwhile may say otherwise of the caller
        admit?.()
      }
      input = operation.parse(call.raw)
      parsed = true
      const prepared = await operation.prepare(input, scope)
      resources = prepared.resources
      for (const demand of prepared.demands) {
        const answer = authorizer.decide(principal, demand)
        const decision = answer instanceof Promise ? await answer : answer
        decidedBy = decision.statement
        if (decision.allowed && decision.grantId !== undefined) {
          grantIds.add(decision.grantId)
          granted.push(demand)
        }
        if (!decision.allowed) throw (prepared.denial ?? accessDenied(principal))(decision, demand)
      }
      const admitted = granted.length === 0 ? scope : whileGranted(authorizer, granted, scope)
      outcome = { ok: true, output: await operation.perform(input, resources, admitted) }
    } catch (cause) {
      outcome = { ok: false, error: toGatewayError(cause), authenticated: true }
    }

    const failure = outcome.ok ? undefined : describeError(call.door, outcome.error)
    try {
      const eventId = await journal.appendCall({
        door: call.door,
        operation: operation.name,
        readOnly: operation.readOnly,
        requestId: call.requestId,
        receivedAt: call.receivedAt,
        region,
        source: call.source,
        principal,
        ...(parsed
          ? withGrants(operation.record(input, resources, outcome.ok ? outcome.output : undefined), grantIds)
          : { requestParameters: null, responseElements: null, resources: [] }),
        ...(decidedBy === undefined ? {} : { decidedBy }),
        ...(failure === undefined ? {} : { error: failure }),
      })
      if (outcome.ok && parts.used !== undefined) {
        const use = { operation: operation.name, at: call.receivedAt, eventId, requestId: call.requestId }
        for (const key of operation.uses?.(resources) ?? []) parts.used(key, use)
      }
    } catch (cause) {
      if (outcome.ok) operation.discard?.(outcome.output)
      outcome = { ok: false, error: auditFailure(cause), authenticated: true }
    }
    observer.callFinished(call, outcome, principal, performance.now() - startedMs)
    return outcome
  }
}

/**
 * A call that a grant allowed is asked about again whenever it leaves a queue, so that a revocation holds for what still waits. Where
 * that can't be told at once, the decision that was made stands.
 */
function whileGranted(authorizer: Authorizer, demands: readonly Demand[], scope: Scope): Scope {
  const { deadline, principal } = scope
  const admit = () => {
    deadline.admit?.()
    for (const demand of demands) {
      const decision = authorizer.decide(principal, demand)
      if (decision instanceof Promise) decision.catch(() => {})
      else if (!decision.allowed) throw accessDenied(principal)(decision, demand)
    }
  }
  return { ...scope, deadline: { atMs: deadline.atMs, admit } }
}

/** A call that grants allowed names them: `grantId`, or all of them where source and destination have one each. */
function withGrants<Recorded extends Pick<AuditedCall, 'additionalEventData'>>(
  recorded: Recorded,
  grantIds: ReadonlySet<string>,
): Recorded {
  if (grantIds.size === 0) return recorded
  const named = grantIds.size === 1 ? { grantId: [...grantIds][0] } : { grantIds: [...grantIds] }
  return { ...recorded, additionalEventData: { ...recorded.additionalEventData, ...named } }
}

function accessDenied(principal: Principal) {
  return (decision: Decision & { allowed: false }, demand: Demand): GatewayError =>
    new GatewayError('AccessDenied', {
      principal: principal.arn,
      action: demand.action,
      ...(demand.resource === '*' ? {} : { resource: demand.askedAs ?? demand.resource }),
      reason: decision.reason,
    })
}

function auditFailure(cause: unknown): GatewayError {
  const error = toGatewayError(cause)
  return error.code === 'AuditUnavailable' ? error : new GatewayError('AuditUnavailable', undefined, { cause })
}
