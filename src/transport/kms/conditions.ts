/**
 * The condition keys of every demand of the KMS door (Service Authorization Reference, "Condition keys for AWS KMS"), in lower case.
 * The authorizer adds those that describe the principal and the time. Values of a key are computed once per catalog entry.
 */
import { addEncryptionContext } from '../../authorize/authorize.ts'
import type { ConditionContext, Demand, GrantTerms } from '../../call.ts'
import type { KeyEntry } from '../../catalog/catalog.ts'
import type { EncryptionContext, ResolvedKey } from '../../keys/keys.ts'
import type { Scope } from '../../pipeline.ts'

type MutableContext = Map<string, string | readonly string[]>

/** What one operation contributes beyond its key. */
export interface OperationConditions {
  readonly encryptionContext?: EncryptionContext
  readonly algorithm?: readonly [
    'kms:encryptionalgorithm' | 'kms:signingalgorithm' | 'kms:macalgorithm' | 'kms:keyagreementalgorithm',
    string,
  ]
  /** Cryptographic operations, DescribeKey and GetPublicKey: the alias by which the request named the key. */
  readonly namesAlias?: boolean
  readonly more?: Iterable<readonly [key: string, value: string | readonly string[]]>
  /** As in {@link Demand}. */
  readonly grantId?: string
  readonly offer?: GrantTerms
}

/** Who calls, from where. */
export type CallOrigin = Pick<Scope, 'principal' | 'region' | 'source'>

/** Keys that hold for any call: where it came from and, but for calls without a key, the caller's account. */
function callContext(scope: CallOrigin): MutableContext {
  const { source } = scope
  return new Map([
    ['aws:sourceip', source.ip],
    ...(source.userAgent === '' ? [] : [['aws:useragent', source.userAgent] as const]),
    ['aws:securetransport', source.tls === undefined ? 'false' : 'true'],
    ['aws:requestedregion', scope.region],
  ])
}

const byEntry = new WeakMap<KeyEntry, readonly (readonly [string, string])[]>()

function keyProperties(entry: KeyEntry): readonly (readonly [string, string])[] {
  const known = byEntry.get(entry)
  if (known !== undefined) return known
  const { spec, usage, origin, multiRegion, related, region } = entry.key
  const multiRegionKeyType = related === undefined || related.primary === region ? 'PRIMARY' : 'REPLICA'
  const properties: (readonly [string, string])[] = specContext({
    spec,
    usage,
    origin,
    multiRegion,
    multiRegionKeyType,
  })
  for (const [key, value] of Object.entries(entry.tags)) {
    properties.push([`aws:resourcetag/${key.toLowerCase()}`, value])
  }
  byEntry.set(entry, properties)
  return properties
}

/** The keys that describe a KMS key, of CreateKey's request as of an existing key. */
export function specContext(key: {
  readonly spec: string
  readonly usage: string
  readonly origin: string
  readonly multiRegion: boolean
  readonly multiRegionKeyType?: 'PRIMARY' | 'REPLICA'
}): (readonly [string, string])[] {
  return [
    ['kms:keyspec', key.spec],
    ['kms:customermasterkeyspec', key.spec],
    ['kms:keyusage', key.usage],
    ['kms:customermasterkeyusage', key.usage],
    ['kms:keyorigin', key.origin],
    ['kms:multiregion', String(key.multiRegion)],
    ...(key.multiRegion ? [['kms:multiregionkeytype', key.multiRegionKeyType ?? 'PRIMARY'] as const] : []),
  ]
}

/** The demand to perform `action` on a key. */
export function demandOnKey(
  action: string,
  key: ResolvedKey,
  scope: CallOrigin,
  conditions: OperationConditions = {},
): Demand {
  const { entry } = key
  const context = callContext(scope)
  context.set('kms:calleraccount', scope.principal.account)
  for (const [name, value] of entry === undefined ? [] : keyProperties(entry)) context.set(name, value)
  if (conditions.namesAlias === true && key.alias !== undefined) context.set('kms:requestalias', key.alias)
  if (conditions.algorithm !== undefined) context.set(conditions.algorithm[0], conditions.algorithm[1])
  if (conditions.encryptionContext !== undefined) {
    addEncryptionContext(context, Object.entries(conditions.encryptionContext))
  }
  for (const [name, value] of conditions.more ?? []) context.set(name, value)
  return {
    action,
    resource: key.arn,
    ...(key.alias === undefined || key.account === scope.principal.account ? {} : { askedAs: aliasArnOf(key) }),
    resourceAccount: key.account,
    resourcePolicy: entry === undefined ? undefined : (entry.policy?.document ?? null),
    ...(entry?.policy == null ? {} : { resourcePolicyRevision: entry.policy.revision }),
    ...(conditions.grantId === undefined ? {} : { grantId: conditions.grantId }),
    ...(conditions.offer === undefined ? {} : { offer: conditions.offer }),
    context,
  }
}

/** Another account's alias, as it was asked for: that it exists, and which key is behind it, is that account's business. */
function aliasArnOf({ arn, alias }: ResolvedKey): string {
  return `${arn.split(':', 5).join(':')}:${alias}`
}

/** The demand of an operation without an existing key: identity policies alone decide. */
export function demandWithoutKey(
  action: string,
  scope: Scope,
  options: {
    readonly resource?: string
    readonly hasCallerAccount: boolean
    readonly more?: OperationConditions['more']
  },
): Demand {
  const context = callContext(scope)
  if (options.hasCallerAccount) context.set('kms:calleraccount', scope.principal.account)
  for (const [name, value] of options.more ?? []) context.set(name, value)
  return {
    action,
    resource: options.resource ?? '*',
    resourceAccount: scope.account,
    resourcePolicy: null,
    context: context satisfies ConditionContext,
  }
}

/** `aws:RequestTag/<key>` and `aws:TagKeys` of a request that sets tags. */
export function requestTags(
  tags: Readonly<Record<string, string>>,
): (readonly [key: string, value: string | readonly string[]])[] {
  const keys = Object.keys(tags)
  if (keys.length === 0) return []
  return [
    ...keys.map((key) => [`aws:requesttag/${key.toLowerCase()}`, tags[key] as string] as const),
    ['aws:tagkeys', keys] as const,
  ]
}
