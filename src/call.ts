/**
 * The nouns of one request, shared by every door: who calls (Principal), what for (Operation, Call), whether it may (Demand,
 * Decision), until when (Deadline). Plain frozen values; nothing here does I/O.
 */

/** Doors through which calls come in; also the audit record's event source. */
export type Door = 'kms' | 'sts' | 'xks' | 'offload' | 'operator'

/** Who presents the call, after authentication. */
export interface Principal {
  /** `key-store`: an external key store, by its own credential; its arn is of the gateway's making. */
  readonly type: 'user' | 'role-session' | 'root' | 'operator' | 'key-store'
  /** `arn:aws:iam::<account>:user/<name>`, `arn:aws:sts::<account>:assumed-role/<role>/<session>`, ... */
  readonly arn: string
  readonly account: string
  /** Stable unique id (`AIDA...`, `AROA...:session`). */
  readonly principalId: string
  readonly userName?: string
  readonly accessKeyId?: string
  /** For a role session: the role's ARN, and when the session was issued (epoch seconds). */
  readonly roleArn?: string
  readonly issuedAt?: number
  readonly tags?: Readonly<Record<string, string>>
  /** For a role session: the policy document that narrows what the role may. */
  readonly sessionPolicy?: string
}

/** An absolute limit on the monotonic clock (milliseconds of `performance.now()`), so that wall-clock jumps don't matter. */
export interface Deadline {
  readonly atMs: number
  /** Asked again whenever the call leaves a queue. @throws GatewayError when it may no longer run: key disabled, credential withdrawn. */
  readonly admit?: () => void
}

export function deadlineIn(timeoutMs: number): Deadline {
  return { atMs: performance.now() + timeoutMs }
}

/** Milliseconds left, negative when the deadline has passed. */
export function remainingMs(deadline: Deadline): number {
  return deadline.atMs - performance.now()
}

/** Where a call came from, for conditions and the audit record. */
export interface Source {
  readonly ip: string
  readonly userAgent: string
  readonly tls?: { readonly version: string; readonly cipherSuite: string; readonly host: string }
}

/** Values of condition keys, by lower-case key (`kms:encryptioncontext:app`, `aws:sourceip`). A key that is absent is absent. */
export type ConditionContext = ReadonlyMap<string, string | readonly string[]>

/** What a grant gives, and under which conditions (KMS API Reference, "GrantConstraints"). */
export interface GrantTerms {
  readonly operations: readonly string[]
  readonly constraints?: {
    readonly encryptionContextEquals?: Readonly<Record<string, string>>
    readonly encryptionContextSubset?: Readonly<Record<string, string>>
    readonly sourceArn?: string
  }
}

/**
 * One thing that must be allowed before an operation runs. An operation may make several (ReEncrypt: from and to).
 */
export interface Demand {
  /** IAM action, e.g. `kms:Encrypt`. */
  readonly action: string
  /** Resource ARN, or `*` for operations without a resource. */
  readonly resource: string
  /** What a refusal names instead, where `resource` would tell the caller more than he knew. */
  readonly askedAs?: string
  /** Account that owns the resource. */
  readonly resourceAccount: string
  /** The resource's own policy (a key policy document), `null` where the kind of resource has none; `undefined` when the resource does not exist. */
  readonly resourcePolicy: string | null | undefined
  /** Revision of that policy: the cache key of its parsed form together with `resource`. */
  readonly resourcePolicyRevision?: number
  /** What allows it already, by name (the binding of a token that was presented): only an explicit Deny of the resource's policy stands against it. */
  readonly peer?: string
  /** Of `kms:RetireGrant`: the grant to be retired. */
  readonly grantId?: string
  /** Of `kms:CreateGrant`: what the grant to be made would give. */
  readonly offer?: GrantTerms
  readonly context: ConditionContext
}

/** Why a demand was allowed or denied; `statement` names the policy and Sid (or index) that decided. */
export type Decision =
  | {
      readonly allowed: true
      readonly by: 'administrator' | 'identity-policy' | 'key-policy' | 'grant' | 'peer'
      readonly statement: string
      /** The grant that allowed it. */
      readonly grantId?: string
    }
  | {
      readonly allowed: false
      readonly reason:
        | 'explicit-deny-identity'
        | 'explicit-deny-resource'
        | 'no-identity-allow'
        | 'no-resource-allow'
        | 'cross-account'
      readonly statement: string
    }
