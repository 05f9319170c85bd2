/** KeyMetadata as CreateKey and DescribeKey return it (AWS KMS API Reference, "KeyMetadata"), and as an audit record shows it. */
import type { KeyEntry, KeyName, RelatedRegions } from '../../catalog/catalog.ts'
import type { KeyUsage } from '../../hsm/port.ts'
import type { KeyService, StoreKeyDescription } from '../../keys/keys.ts'

/** Seconds with a fraction: every timestamp on this wire is a JSON number. */
export function epochSeconds(atMs: number): number {
  return atMs / 1000
}

/** The member that lists a key's algorithms; those of other usages are absent, not empty. */
export const algorithmMember: Readonly<Record<Exclude<KeyUsage, 'WRAP_UNWRAP'>, string>> = {
  ENCRYPT_DECRYPT: 'EncryptionAlgorithms',
  SIGN_VERIFY: 'SigningAlgorithms',
  GENERATE_VERIFY_MAC: 'MacAlgorithms',
  KEY_AGREEMENT: 'KeyAgreementAlgorithms',
  ENCAPSULATE_DECAPSULATE: 'EncapsulationAlgorithms',
}

export type KeyMetadata = Readonly<Record<string, unknown>>

export function algorithmList(entry: KeyEntry, keys: KeyService): Readonly<Record<string, readonly string[]>> {
  const { spec, usage } = entry.key
  if (usage === 'WRAP_UNWRAP') return {}
  return { [algorithmMember[usage]]: keys.algorithmsOf(spec, usage) }
}

export function renderKeyMetadata(entry: KeyEntry, keys: KeyService): KeyMetadata {
  const { key } = entry
  const arn = keys.keyArn(key)
  const materialId = currentMaterialId(entry)
  const { state, imported } = keys.condition(entry)
  return {
    AWSAccountId: key.account,
    KeyId: key.keyId,
    Arn: arn,
    CreationDate: epochSeconds(key.createdAt),
    Enabled: state === 'Enabled',
    Description: key.description,
    KeyUsage: key.usage,
    KeyState: state,
    ...(key.state === 'PendingDeletion' && key.deletionAt !== null
      ? { DeletionDate: epochSeconds(key.deletionAt) }
      : {}),
    ...(imported === undefined ? {} : renderExpiry(imported.expiresAt)),
    ...(key.state === 'PendingReplicaDeletion' ? { PendingDeletionWindowInDays: key.related?.pendingWindowDays } : {}),
    Origin: key.origin,
    ...describeStore(keys.storeOf(entry)),
    KeyManager: 'CUSTOMER',
    CustomerMasterKeySpec: key.spec,
    KeySpec: key.spec,
    ...algorithmList(entry, keys),
    MultiRegion: key.multiRegion,
    ...(key.related === undefined ? {} : { MultiRegionConfiguration: describeRelated(key, key.related, keys) }),
    ...(materialId === undefined ? {} : { CurrentKeyMaterialId: materialId }),
  }
}

function describeStore(store: StoreKeyDescription | undefined): Readonly<Record<string, unknown>> {
  if (store === undefined) return {}
  return {
    CustomKeyStoreId: store.storeId,
    ...(store.clusterId === undefined ? {} : { CloudHsmClusterId: store.clusterId }),
    ...(store.xksKeyId === undefined ? {} : { XksKeyConfiguration: { Id: store.xksKeyId } }),
  }
}

/** ExpirationModel and ValidTo, of material that is there. */
export function renderExpiry(expiresAt: number | null): Readonly<Record<string, unknown>> {
  if (expiresAt === null) return { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' }
  return { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo: epochSeconds(expiresAt) }
}

function describeRelated(
  { account, keyId, region }: KeyName,
  { primary, regions }: RelatedRegions,
  keys: KeyService,
): Readonly<Record<string, unknown>> {
  const describe = (other: string) => ({ Arn: keys.keyArn({ account, region: other, keyId }), Region: other })
  return {
    MultiRegionKeyType: region === primary ? 'PRIMARY' : 'REPLICA',
    PrimaryKey: describe(primary),
    ReplicaKeys: regions.filter((other) => other !== primary).map(describe),
  }
}

/** Symmetric keys of this gateway's own or imported material alone have one. */
function currentMaterialId(entry: KeyEntry): string | undefined {
  const { spec, origin, currentMaterial, state } = entry.key
  // A replica has none before it can be used.
  if (state === 'Creating') return undefined
  if (spec !== 'SYMMETRIC_DEFAULT' || (origin !== 'AWS_KMS' && origin !== 'EXTERNAL')) return undefined
  const material = entry.materials.find((row) => row.number === currentMaterial)
  return material === undefined || material.materialId.length === 0 ? undefined : material.materialId.toString('hex')
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** CloudTrail's own form of dates inside responseElements: `Aug 10, 2022, 10:38:27 PM`, UTC. */
export function recordDate(atSeconds: number): string {
  const date = new Date(atSeconds * 1000)
  const two = (value: number) => String(value).padStart(2, '0')
  const hour = date.getUTCHours()
  const clock = `${hour % 12 === 0 ? 12 : hour % 12}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`
  const day = `${months[date.getUTCMonth()]} ${date.getUTCDate()}, ${date.getUTCFullYear()}`
  return `${day}, ${clock} ${hour < 12 ? 'AM' : 'PM'}`
}

/** An output as an audit record shows it: lowerCamel members, dates in words. */
export function recordOutput(output: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const recorded: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(output)) {
    if (value === undefined) continue
    const member = name.charAt(0).toLowerCase() + name.slice(1)
    if ((name.endsWith('Date') || name === 'ValidTo') && typeof value === 'number') recorded[member] = recordDate(value)
    else if (Array.isArray(value)) recorded[member] = value.map((item) => (isRecord(item) ? recordOutput(item) : item))
    else recorded[member] = isRecord(value) ? recordOutput(value) : value
  }
  return recorded
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
