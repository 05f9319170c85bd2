/**
 * What the operations on one key have in common: look the key up, demand its action, perform, record. An operation file adds its
 * schema, its conditions and its meaning.
 */
import type { Authorizer } from '../../../authorize/authorize.ts'
import type { Decision, Demand } from '../../../call.ts'
import type { KeyEntry } from '../../../catalog/catalog.ts'
import { GatewayError } from '../../../error.ts'
import { isKmsVisible, type KeyService, type ResolvedKey, type StoreKeyDescription } from '../../../keys/keys.ts'
import type { Operation, Prepared, Scope, UsedKey } from '../../../pipeline.ts'
import type { CustomKeyStores } from '../../../stores/stores.ts'
import { demandOnKey, type OperationConditions } from '../conditions.ts'
import { KmsError } from '../kms-error.ts'
import { readInput, recordInput } from '../request-body.ts'
import type { RequestQuotas } from '../request-quotas.ts'
import type { Schema } from '../schema.ts'

/** What operations are built from. */
export interface KmsParts {
  readonly keys: KeyService
  /** Judges whether a new key policy would lock its author out. */
  readonly authorizer: Pick<Authorizer, 'decide'>
  /** Whether a user, role, session or account that a key policy names exists; without it every name is taken. */
  readonly principalExists?: (name: string) => boolean | Promise<boolean>
  /** Regions that the gateway serves; without it every name is taken. */
  readonly regions?: ReadonlySet<string>
  /** Custom key stores; without it there are none. */
  readonly stores?: CustomKeyStores
  /** Request rates; without it they are not limited. */
  readonly quotas?: RequestQuotas
}

/** The result of an operation before it is rendered. */
export interface KmsOutput {
  /** Output members; Buffers become base64. Null where the operation answers nothing. */
  readonly members: Readonly<Record<string, unknown>> | null
  /** For the audit record; never a secret. */
  readonly additionalEventData?: Readonly<Record<string, unknown>>
}

export type KmsOperation = Operation<unknown, unknown, KmsOutput>

/** Budget of calls that use a key and of those that make or change one. */
export const useTimeoutMs = 5_000
export const changeTimeoutMs = 60_000

/** A key as the request names it, and how a refusal is worded where AWS does it otherwise. */
export interface NamedKey {
  readonly key: ResolvedKey
  readonly denial?: (decision: Decision & { allowed: false }, demand: Demand) => GatewayError
}

interface KeyOperation<I> {
  readonly name: string
  readonly readOnly: boolean
  readonly timeoutMs?: number
  readonly input: Schema<I>
  /** Rules across members that need no key. @throws GatewayError */
  check?(input: I): void
  /** Finds the key; usually by `KeyId`. */
  find(input: NoInfer<I>, scope: Scope): Promise<NamedKey>
  /** The key may be another account's. */
  readonly isCrossAccount: boolean
  conditions?(input: I): OperationConditions
  perform(input: I, key: PresentKey, scope: Scope): Promise<KmsOutput>
  /** CloudTrail's responseElements: null for cryptographic and read calls. */
  respond?(output: KmsOutput, key: ResolvedKey): Readonly<Record<string, unknown>> | null
  /** Request parameters beyond what the schema records. */
  amend?(recorded: Readonly<Record<string, unknown>>, input: I): Readonly<Record<string, unknown>>
}

/** A key that exists. */
export interface PresentKey extends ResolvedKey {
  readonly entry: KeyEntry
}

/** Uses that GetKeyLastUsage tells of (AWS KMS API Reference, "KeyLastUsageData"). */
const cryptographicOperations: ReadonlySet<string> = new Set([
  'Decapsulate',
  'Decrypt',
  'DeriveSharedSecret',
  'Encapsulate',
  'Encrypt',
  'GenerateDataKey',
  'GenerateDataKeyPair',
  'GenerateDataKeyPairWithoutPlaintext',
  'GenerateDataKeyWithoutPlaintext',
  'GenerateMac',
  'Sign',
  'Verify',
  'VerifyMac',
])

/** The keys that a cryptographic call used, for the date of their last use. */
export function usedKeys(...keys: readonly ResolvedKey[]): readonly UsedKey[] {
  return keys.flatMap(({ entry }) => (entry === undefined ? [] : [entry.key]))
}

export function defineKeyOperation<I>(definition: KeyOperation<I>): Operation<I, ResolvedKey, KmsOutput> {
  const { name, readOnly, timeoutMs = useTimeoutMs, input: schema } = definition
  return {
    name,
    readOnly,
    timeoutMs,
    parse(raw) {
      const input = readInput(schema, raw)
      definition.check?.(input)
      return input
    },
    async prepare(input, scope): Promise<Prepared<ResolvedKey>> {
      const { key, denial } = await definition.find(input, scope)
      const visible = definition.isCrossAccount ? key : localOnly(key, scope)
      return {
        resources: visible,
        demands: [demandOnKey(`kms:${name}`, visible, scope, definition.conditions?.(input))],
        ...(denial === undefined ? {} : { denial }),
      }
    },
    ...(cryptographicOperations.has(name) ? { uses: (key: ResolvedKey) => usedKeys(key) } : {}),
    perform(input, key, scope) {
      return definition.perform(input, requirePresent(key), scope)
    },
    record(input, key, output) {
      const recorded = recordInput(schema, input)
      return {
        requestParameters: definition.amend?.(recorded, input) ?? recorded,
        responseElements:
          output === undefined || key === undefined ? null : (definition.respond?.(output, key) ?? null),
        resources: key === undefined ? [] : [recordKey(key)],
        ...(output?.additionalEventData === undefined ? {} : { additionalEventData: output.additionalEventData }),
      }
    },
  }
}

/** For operations that never reach into another account: there, every key is as good as absent. */
export function localOnly(key: ResolvedKey, scope: Scope): ResolvedKey {
  return key.account === scope.account ? key : { ...key, entry: undefined }
}

/**
 * Looks up what a KeyId member names. Keys that belong to another door don't exist here.
 * @throws GatewayError `KeyNotFound`
 */
export async function findKey(
  keys: KeyService,
  reference: string,
  accepts: 'key' | 'key-or-alias',
  scope: Scope,
): Promise<ResolvedKey> {
  const key = await keys.resolve(reference, accepts, scope)
  if (key.entry === undefined || isKmsVisible(key.entry)) return key
  if (key.account !== scope.account) return { ...key, entry: undefined }
  throw new GatewayError('KeyNotFound', { text: `Key '${key.arn}' does not exist` })
}

/** The usual way to a key: by `KeyId`, an alias accepted, grant tokens checked. */
export function findByKeyId(keys: KeyService) {
  return async (
    request: { readonly KeyId: string; readonly GrantTokens?: readonly string[] },
    scope: Scope,
  ): Promise<NamedKey> => {
    const key = await findKey(keys, request.KeyId, 'key-or-alias', scope)
    if (request.GrantTokens !== undefined) await checkGrantTokens(keys, request.GrantTokens, key)
    return { key }
  }
}

/** By key id or key ARN alone. */
export function findByBareKeyId(keys: KeyService) {
  return async (request: { readonly KeyId: string }, scope: Scope): Promise<NamedKey> => ({
    key: await findKey(keys, request.KeyId, 'key', scope),
  })
}

/** Authorization denies every demand on a key that does not exist; getting here without one is our mistake. */
export function requirePresent(key: ResolvedKey): PresentKey {
  if (key.entry === undefined) throw new TypeError('a demand on an absent key was allowed')
  return key as PresentKey
}

export function recordKey(key: ResolvedKey): { account: string; type: string; arn: string } {
  return { account: key.account, type: 'AWS::KMS::Key', arn: key.arn }
}

/**
 * Grants hold at once, so tokens permit nothing more; but each must stand for a grant that exists, on a key of the call.
 * @throws KmsError `GrantTokenInvalid`
 */
export async function checkGrantTokens(
  keys: KeyService,
  tokens: readonly string[] | undefined,
  ...usedKeys: readonly ResolvedKey[]
): Promise<void> {
  for (const token of tokens ?? []) {
    const named = keys.parseGrantToken(token)
    const isUsed = named !== undefined && usedKeys.some(({ arn }) => arn === keys.keyArn(named))
    if (!isUsed || (await keys.findGrant(named, named.grantId)) === undefined) throw new KmsError('GrantTokenInvalid')
  }
}

/** Attestation documents can't be verified here; the plaintext must not go out in clear instead. */
export function refuseRecipient(recipient: unknown): void {
  if (recipient !== undefined) throw new GatewayError('Unsupported', {})
}

/** Audit data of symmetric cryptography; of a key in a custom key store it names the store instead. */
export function materialData(
  materialId: string | null,
  store?: StoreKeyDescription,
): Pick<KmsOutput, 'additionalEventData'> {
  if (store !== undefined) {
    const { storeId: customKeyStoreId, ...more } = store
    return { additionalEventData: { customKeyStoreId, ...more } }
  }
  return materialId === null ? {} : { additionalEventData: { keyMaterialId: materialId } }
}
