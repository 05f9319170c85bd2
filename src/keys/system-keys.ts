/**
 * The gateway's own keys: purpose `system`, in account and Region `system`, no policy, reachable through no door.
 * Their names, specs and custody are the table of docs/system-keys.md. Made at first start, found again at every later one.
 */
import { createHash } from 'node:crypto'
import { type Deadline, deadlineIn } from '../call.ts'
import type { KeyEntry, KeyName } from '../catalog/catalog.ts'
import { GatewayError, isCode } from '../error.ts'
import type { HsmKey, KeySpec, KeyUsage } from '../hsm/port.ts'
import { currentMaterial, hsmKeyOf } from './backing-key.ts'
import { type CreationParts, createBackedKey, settleBackingKey } from './create-key.ts'
import { encodeEcdsaSignature } from './signature.ts'

export const systemKeys = {
  /** HMAC over catalog rows that decide security. */
  'catalog-hmac': { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' },
  /** Seals secret access keys and other credentials that the gateway must know in clear while it runs. */
  'secret-sealing': { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' },
  /** Signs checkpoints of the audit chain. */
  'audit-checkpoint': { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' },
  /** Signs the certificates of relays; made when the first one is asked for. */
  'relay-ca': { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' },
} as const satisfies Record<string, { spec: KeySpec; usage: KeyUsage }>

export type SystemKeyName = keyof typeof systemKeys

const systemCallMs = 5000
const systemCreationMs = 60_000

function nameOf(keyId: SystemKeyName) {
  return { account: 'system', region: 'system', keyId }
}

export interface SystemKeys {
  /** Seals a secret, bound to `context` (what it belongs to). */
  seal(secret: Uint8Array, context: string): Promise<Buffer>
  /** @throws GatewayError `CiphertextInvalid` when the bytes or the context differ. */
  unseal(sealed: Uint8Array, context: string): Promise<Buffer>
  /** DER ECDSA signature with SHA-256 over a digest, for audit checkpoints. */
  signCheckpoint(
    digest: Uint8Array,
  ): Promise<{ readonly signature: Buffer; readonly publicKey: Buffer; readonly keyId: string }>
  /** Signs certificates of relays: ECDSA with SHA-256, as r || s. */
  readonly relayAuthority: {
    readonly name: KeyName
    open(): Promise<{
      readonly entry: KeyEntry
      readonly spec: KeySpec
      readonly publicKey: Buffer
      sign(tbs: Uint8Array): Promise<Buffer>
    }>
  }
}

export interface SystemKeyParts extends CreationParts {
  /** HSM group that holds the system keys. */
  readonly group: string
}

/**
 * Finds or makes the key that seals catalog rows and installs it. It cannot vouch for its own row before it is found: the row is
 * read unverified, then verified with itself.
 */
export async function openCatalogSeal(parts: SystemKeyParts): Promise<void> {
  const { catalog, hsm } = parts
  const install = (key: HsmKey): void =>
    catalog.useSeal({ compute: (bytes) => hsm.mac(key, 'HMAC_SHA_256', bytes, soon()) })
  const creation = { ...parts, onGenerated: install }
  const name = nameOf('catalog-hmac')
  const found = await catalog.findUnverified(name)
  if (found !== undefined) requireOwn(found)
  if (found?.key.state === 'Creating') {
    for (const material of found.materials) await settleBackingKey(creation, found, material, soon())
  }
  const settled = await catalog.findUnverified(name)
  if (settled === undefined) {
    await makeSystemKey(creation, 'catalog-hmac')
    return
  }
  requireOwn(settled)
  const key = hsmKeyOf(settled, currentMaterial(settled))
  install(key)
  await catalog.verifyEntry(settled).catch(async (cause) => {
    if (!isCode(cause, 'KeyUnavailable') || (await hsm.attributes(key, soon())) !== null) throw cause
    const detail = 'the token does not hold the key that seals this catalog: the catalog is another token’s'
    throw new GatewayError('KeyUnavailable', undefined, { detail, cause })
  })
}

/**
 * The unverified row may say which object seals, never that it is any other key than a system one: the MACs of an ordinary key are for
 * sale at the KMS door, and who could name it here could forge every row. Workers see to it that the object is what the row says.
 */
function requireOwn({ key, materials }: KeyEntry): void {
  const { spec, usage } = systemKeys['catalog-hmac']
  const isOwn = key.purpose === 'system' && key.spec === spec && key.usage === usage && !key.adopted
  if (isOwn && materials.every(({ label }) => label === null)) return
  throw new GatewayError('IntegrityFailed', undefined, {
    detail: 'the row of the key that seals the catalog names another kind of key; restore the catalog from a backup',
  })
}

/** Finds or makes the other system keys. The catalog must be sealed and settled. */
export async function openSystemKeys(parts: SystemKeyParts): Promise<SystemKeys> {
  const { hsm } = parts
  const sealing = await openSystemKey(parts, 'secret-sealing')
  const checkpoint = await openSystemKey(parts, 'audit-checkpoint')
  const sealingKey = hsmKeyOf(sealing, currentMaterial(sealing))
  const checkpointMaterial = currentMaterial(checkpoint)
  const checkpointKey = hsmKeyOf(checkpoint, checkpointMaterial)

  return {
    seal: (secret, context) => hsm.encrypt(sealingKey, 'SEAL', { context: Buffer.from(context), data: secret }, soon()),
    unseal: (sealed, context) =>
      hsm.decrypt(sealingKey, 'SEAL', { context: Buffer.from(context), data: sealed }, soon()),
    async signCheckpoint(statement) {
      const digest = createHash('sha256').update(statement).digest()
      const raw = await hsm.sign(checkpointKey, 'ECDSA', digest, soon())
      return {
        signature: encodeEcdsaSignature(raw),
        publicKey: checkpointMaterial.publicKey,
        keyId: checkpointMaterial.objectId.toString('hex'),
      }
    },
    relayAuthority: {
      name: nameOf('relay-ca'),
      async open() {
        const entry = await openSystemKey(parts, 'relay-ca')
        const material = currentMaterial(entry)
        const key = hsmKeyOf(entry, material)
        return {
          entry,
          spec: entry.key.spec,
          publicKey: material.publicKey,
          sign: (tbs) => hsm.sign(key, 'ECDSA', createHash('sha256').update(tbs).digest(), soon()),
        }
      },
    },
  }
}

function soon(): Deadline {
  return deadlineIn(systemCallMs)
}

async function openSystemKey(parts: SystemKeyParts, name: SystemKeyName): Promise<KeyEntry> {
  const found = await parts.catalog.findKey(nameOf(name))
  if (found === undefined) return makeSystemKey(parts, name)
  if (found.key.state === 'Enabled') return found
  throw new GatewayError('KeyUnavailable', undefined, { detail: `system key ${name} is ${found.key.state}` })
}

function makeSystemKey(parts: SystemKeyParts, name: SystemKeyName): Promise<KeyEntry> {
  const plan = {
    ...systemKeys[name],
    name: nameOf(name),
    purpose: 'system',
    origin: 'AWS_KMS',
    description: '',
    policy: '',
    tags: {},
    multiRegion: false,
    group: parts.group,
  } as const
  return createBackedKey(parts, plan, deadlineIn(systemCreationMs))
}
