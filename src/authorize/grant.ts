/**
 * A grant as a plain value (KMS API Reference, "GrantListEntry" and "GrantConstraints"). The store of grants is elsewhere.
 */

export type ContextPairs = Readonly<Record<string, string>>

export interface GrantConstraints {
  readonly encryptionContextEquals?: ContextPairs
  readonly encryptionContextSubset?: ContextPairs
  readonly sourceArn?: string
}

export interface Grant {
  readonly grantId: string
  readonly keyArn: string
  /** An ARN or a 12-digit account; absent where a service is the grantee, which no caller of the gateway is. */
  readonly granteePrincipal?: string
  readonly retiringPrincipal?: string
  /** The account in which the grant was created. */
  readonly issuingAccount: string
  /** Names of grant operations: `Decrypt`, `ReEncryptFrom`, ... */
  readonly operations: readonly string[]
  readonly constraints?: GrantConstraints
}

/** Operations that carry an encryption context; constraints on it bind these, and CreateGrant by way of the child grant. */
export const contextOperations: ReadonlySet<string> = new Set([
  'Encrypt',
  'Decrypt',
  'GenerateDataKey',
  'GenerateDataKeyWithoutPlaintext',
  'GenerateDataKeyPair',
  'GenerateDataKeyPairWithoutPlaintext',
  'ReEncryptFrom',
  'ReEncryptTo',
])

/** Grants name accounts by id or by root ARN; `*` is no grantee. */
export function canonicalGrantee(principal: string | undefined): string | undefined {
  if (principal === undefined || principal === '*') return undefined
  return /^arn:[a-z-]+:iam::(\d{12}):root$/.exec(principal)?.[1] ?? principal
}
