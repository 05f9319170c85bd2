/**
 * Keys of custom key stores: what their state is while the store is away, how they are made, and how they encrypt. Of an AWS_CLOUDHSM store the key
 * lives in a token of its own group and encrypts there as any other; of an EXTERNAL_KEY_STORE a key of our own module encrypts first, unless it was made
 * without, and the proxy encrypts what came of it. Stateless; `KeyStores` tells of the stores.
 */
import type { Deadline } from '../call.ts'
import type { KeyEntry, KeyState } from '../catalog/catalog.ts'
import { GatewayError, isCode } from '../error.ts'
import type { WhileUsable } from './admission.ts'
import { currentMaterial, hsmKeyOf } from './backing-key.ts'
import { type Blob, decodeBlob, encodeBlobHeader } from './ciphertext-blob.ts'
import { type CreationParts, createBackedKey, describeKey } from './create-key.ts'
import { encodeEncryptionContext } from './encryption-context.ts'
import { decodeExternalTail, encodeExternalTail } from './external-blob.ts'
import { createKeyId, renderKeyArn } from './identifiers.ts'
import { refuseStates } from './key-state.ts'
import type {
  CreateKeyRequest,
  EncryptionContext,
  ExternalCall,
  KeyService,
  KeyStores,
  Locale,
  Requester,
  StoreKeyDescription,
} from './keys.ts'
import { placeOf } from './store-place.ts'

export interface StoreKeyParts extends CreationParts {
  readonly partition: string
  readonly defaultGroup: string
  readonly stores: KeyStores
  readonly whileUsable: WhileUsable
  /** How ordinary keys seal and open. */
  readonly sealBlob: (entry: KeyEntry, data: Uint8Array, context: EncryptionContext, at: Deadline) => Promise<Buffer>
  readonly openBlob: (entry: KeyEntry, blob: Blob, context: EncryptionContext, at: Deadline) => Promise<Buffer>
  readonly requireRoom: (account: string, region: string) => Promise<void>
}

export interface StoreKeys extends Pick<KeyService, 'encrypt' | 'decrypt'> {
  state(entry: KeyEntry): KeyState
  describe(entry: KeyEntry): StoreKeyDescription
  create(request: CreateKeyRequest, locale: Locale, deadline: Deadline): Promise<KeyEntry>
  generateDataKey(
    entry: KeyEntry,
    request: Parameters<KeyService['generateDataKey']>[1],
    deadline: Deadline,
  ): Promise<{ plaintext: Buffer; ciphertext: Buffer; materialId: null }>
}

/** The most that every proxy must take (XKS proxy API specification, "Encrypt"). */
const maxAdditionalBytes = 8192
const noMaterialId = Buffer.alloc(32)
const noRequester: Requester = { requestId: '', principal: { arn: 'AWS Internal' } }

export function createStoreKeys(parts: StoreKeyParts): StoreKeys {
  const { catalog, hsm, partition, stores, whileUsable, now } = parts
  const arnOf = ({ key }: Pick<KeyEntry, 'key'>) => renderKeyArn(partition, key)

  function state(entry: KeyEntry): KeyState {
    const own = entry.key.state
    if (own !== 'Enabled' && own !== 'Disabled') return own
    return stores.isConnected(placeOf(entry).id) ? own : 'Unavailable'
  }

  function requireUsable(entry: KeyEntry, algorithm = 'SYMMETRIC_DEFAULT'): void {
    const found = state(entry)
    if (found !== 'Enabled') refuseStates(arnOf(entry), found, [found])
    if (algorithm === 'SYMMETRIC_DEFAULT') return
    const text = `Algorithm ${algorithm} is incompatible with key spec ${entry.key.spec}.`
    throw new GatewayError('KeyUsageInvalid', { text })
  }

  function seal(entry: KeyEntry, request: Sealing, deadline: Deadline): Promise<Buffer> {
    stores.take(placeOf(entry).id)
    const { plaintext, context } = request
    return entry.key.origin === 'EXTERNAL_KEY_STORE'
      ? sealOutside(entry, request, deadline)
      : inToken(entry, () => parts.sealBlob(entry, plaintext, context, deadline))
  }

  function open(entry: KeyEntry, blob: Blob, request: Opening, deadline: Deadline): Promise<Buffer> {
    if (blob.external !== (entry.key.origin === 'EXTERNAL_KEY_STORE')) throw new GatewayError('CiphertextInvalid')
    stores.take(placeOf(entry).id)
    return blob.external
      ? openOutside(entry, blob, request, deadline)
      : inToken(entry, () => parts.openBlob(entry, blob, request.context, deadline))
  }

  /** What is wrong with the token of a store is a state of the key, as AWS words it. */
  async function inToken<T>(entry: KeyEntry, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (cause) {
      if (!isCode(cause, 'KeyUnavailable') && !isCode(cause, 'HsmFailure')) throw cause
      const text = `${arnOf(entry)} cannot be used: the CloudHSM cluster of its custom key store does not answer.`
      throw new GatewayError('KeyStateInvalid', { text }, { cause, detail: (cause as GatewayError).detail ?? '' })
    }
  }

  function callOf(entry: KeyEntry, { operation, requester = noRequester }: Sealing | Opening): ExternalCall {
    return {
      place: placeOf(entry),
      keyArn: arnOf(entry),
      operation: operation.startsWith('ReEncrypt') ? 'ReEncrypt' : operation,
      requester,
    }
  }

  function sealOutside(entry: KeyEntry, request: Sealing, deadline: Deadline): Promise<Buffer> {
    const header = headerOf(entry)
    const context = encodeEncryptionContext(request.context)
    const aad = additionalData(header, context)
    return whileUsable(entry, deadline, async (limit) => {
      const data = hasOwnLayer(entry)
        ? await hsm.encrypt(keyOf(entry), 'SEAL', { prefix: header, context, data: request.plaintext }, limit)
        : request.plaintext
      limit.admit?.()
      const sealed = await stores.encrypt(callOf(entry, request), data, aad, limit)
      return Buffer.concat([header, encodeExternalTail(sealed)])
    })
  }

  function openOutside(entry: KeyEntry, blob: Blob, request: Opening, deadline: Deadline): Promise<Buffer> {
    // Another material than the key's own is nobody's ciphertext.
    if (!blob.header.equals(headerOf(entry))) throw new GatewayError('CiphertextInvalid')
    const sealed = decodeExternalTail(blob.sealed)
    const context = encodeEncryptionContext(request.context)
    const aad = additionalData(blob.header, context)
    return whileUsable(entry, deadline, async (limit) => {
      limit.admit?.()
      const data = await stores.decrypt(callOf(entry, request), sealed, aad, limit)
      if (!hasOwnLayer(entry)) return data
      try {
        return await hsm.decrypt(keyOf(entry), 'SEAL', { prefix: blob.header, context, data }, limit)
      } catch (cause) {
        if (!isCode(cause, 'CiphertextInvalid')) throw cause
        const text =
          'The ciphertext that the external key store proxy submitted for decryption, or the encryption context, is corrupted, missing, or otherwise invalid.'
        throw new GatewayError('KeyStateInvalid', { text }, { cause })
      }
    })
  }

  return {
    state,

    describe(entry) {
      const { id, xksKeyId } = placeOf(entry)
      const clusterId = stores.clusterOf(id)
      return {
        storeId: id,
        ...(xksKeyId === undefined ? {} : { xksKeyId }),
        ...(clusterId === undefined ? {} : { clusterId }),
      }
    },

    async create(request, locale, deadline) {
      const { store, spec, usage } = request
      if (store === undefined || request.multiRegion || spec !== 'SYMMETRIC_DEFAULT' || usage !== 'ENCRYPT_DECRYPT') {
        throw new GatewayError('Unsupported', {})
      }
      await parts.requireRoom(locale.account, locale.region)
      const name = { account: locale.account, region: locale.region, keyId: createKeyId(false) }
      const keyArn = renderKeyArn(partition, name)
      const { id, xksKeyId, requester } = store
      using reserved = await stores.reserve(
        { place: { id, ...(xksKeyId === undefined ? {} : { xksKeyId }) }, origin: request.origin, keyArn, requester },
        locale,
        deadline,
      )
      const plan = {
        ...request,
        name,
        group: reserved.group ?? parts.defaultGroup,
        extra: { customKeyStore: reserved.place },
      }
      if (!reserved.hasOwnLayer) return catalog.insertKey({ ...describeKey(plan, now(), 'Enabled'), material: null })
      try {
        if (!hsm.capabilities(plan.group).specs[spec]?.includes(usage)) throw new GatewayError('Unsupported', {})
        return await createBackedKey(parts, plan, deadline)
      } catch (cause) {
        throw reserved.explain(cause)
      }
    },

    async encrypt(entry, request, deadline) {
      requireUsable(entry, request.algorithm)
      if (request.dryRun) throw new GatewayError('DryRun')
      return { ciphertext: await seal(entry, request, deadline), materialId: null }
    },

    async decrypt(entry, request, deadline) {
      const found = state(entry)
      if (found !== 'Enabled') refuseStates(arnOf(entry), found, [found])
      const blob = request.algorithm === 'SYMMETRIC_DEFAULT' ? decodeBlob(request.ciphertext) : undefined
      if (blob !== undefined && blob.keyId !== entry.key.keyId) throw new GatewayError('IncorrectKey')
      requireUsable(entry, request.algorithm)
      const plaintext = await open(entry, blob as Blob, request, deadline)
      if (request.dryRun) {
        plaintext.fill(0)
        throw new GatewayError('DryRun')
      }
      return { plaintext, materialId: null }
    },

    async generateDataKey(entry, request, deadline) {
      requireUsable(entry)
      if (request.dryRun) throw new GatewayError('DryRun')
      const group = entry.key.origin === 'EXTERNAL_KEY_STORE' ? parts.defaultGroup : entry.key.group
      const plaintext = await inToken(entry, () => hsm.random(group, request.bytes, deadline))
      try {
        return { plaintext, ciphertext: await seal(entry, { ...request, plaintext }, deadline), materialId: null }
      } catch (cause) {
        plaintext.fill(0)
        throw cause
      }
    },
  }
}

interface Sealing {
  readonly plaintext: Uint8Array
  readonly context: EncryptionContext
  readonly operation: string
  readonly requester?: Requester
}

type Opening = Omit<Sealing, 'plaintext'>

/** Whether a key of our own module encrypts before the proxy does. */
function hasOwnLayer({ materials }: KeyEntry): boolean {
  return materials.length > 0
}

function keyOf(entry: KeyEntry): ReturnType<typeof hsmKeyOf> {
  return hsmKeyOf(entry, currentMaterial(entry))
}

function headerOf(entry: KeyEntry): Buffer {
  const { keyId } = entry.key
  if (!hasOwnLayer(entry)) return encodeBlobHeader({ keyId, materialId: noMaterialId, derived: false, external: true })
  const { materialId, construction } = currentMaterial(entry)
  return encodeBlobHeader({ keyId, materialId, derived: construction === 'derived', external: true })
}

/** @throws GatewayError `ValidationFailed` for a context that a proxy need not take. */
function additionalData(header: Buffer, context: Uint8Array): Buffer {
  const aad = Buffer.concat([header, context])
  if (aad.length <= maxAdditionalBytes) return aad
  const text = 'The encryption context is too large for a KMS key in an external key store.'
  throw new GatewayError('ValidationFailed', { text })
}

/** Of a gateway without custom key stores. */
export const noStores: KeyStores = {
  isConnected: () => false,
  clusterOf: () => undefined,
  take() {},
  reserve: () => refuse(),
  encrypt: () => refuse(),
  decrypt: () => refuse(),
}

function refuse(): never {
  throw new GatewayError('Unsupported', {})
}
