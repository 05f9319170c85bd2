/**
 * The key service: one function per meaning. Each checks in AWS's order (state, usage, algorithm, limits, then the operation, then
 * DryRun) and asks the module last. Stateless but for what it is given; safe for any number of concurrent calls.
 */
import { constants, encapsulate as encapsulateSync, publicEncrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import type { Deadline } from '../call.ts'
import type { Catalog, KeyEntry, KeyName } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { Hsm } from '../hsm/port.ts'
import { createWhileUsable } from './admission.ts'
import { createAdoption } from './adopt.ts'
import {
  type Algorithm,
  algorithms,
  algorithmsOf,
  type EncryptionAlgorithm,
  isProven,
  type SigningAlgorithm,
  signAlgorithmOf,
  specs,
} from './algorithms.ts'
import { createAliases } from './aliases.ts'
import { currentMaterial, hsmKeyOf, isSameCurve, publicKeyOf, sealingOf } from './backing-key.ts'
import { type Blob, decodeBlob } from './ciphertext-blob.ts'
import { createBackedKey, createEmptyKey } from './create-key.ts'
import { generateDataKeyPair, isPairSpec } from './data-key-pair.ts'
import { encodeEncryptionContext } from './encryption-context.ts'
import type { GrantTokens } from './grant-tokens.ts'
import { createGrants } from './grants.ts'
import { createKeyId, renderAliasArn, renderKeyArn } from './identifiers.ts'
import { createImport } from './import.ts'
import type { TokenSealer } from './import-token.ts'
import { earliestExpiry, permanentMaterials, stateAt } from './key-life.ts'
import { requireUsable } from './key-state.ts'
import type { KeyTurns } from './key-turns.ts'
import { type EncryptionContext, type KeyService, type KeyStores, kmsPurposes, type RelatedEvents } from './keys.ts'
import type { LastUsage } from './last-usage.ts'
import { createLifeCycle } from './life-cycle.ts'
import { createMultiRegion } from './multi-region.ts'
import { reconcileGroup } from './reconcile.ts'
import { resolveKey } from './resolve.ts'
import { createRotation } from './rotation.ts'
import { encodeEcdsaSignature, isSignatureValid, moduleInput } from './signature.ts'
import { createStoreKeys, noStores } from './store-keys.ts'
import { isInStore } from './store-place.ts'
import { createTlsSigning, refuseTlsKey } from './tls-keys.ts'

/** mu of ML-DSA (FIPS 204 section 6.2). */
const externalMuBytes = 64
/** On libuv's thread pool. */
const encapsulate = promisify(encapsulateSync)

const hashBytes = { sha1: 20, sha256: 32 }

export interface KeyServiceParts {
  readonly catalog: Catalog
  readonly hsm: Hsm
  readonly partition: string
  readonly defaultGroup: string
  /** Most keys of one account in one Region; without it there is no limit. */
  readonly keysPerRegion?: number
  /** Wall time in epoch milliseconds. */
  readonly now: () => number
  readonly grantTokens: GrantTokens
  readonly turns: KeyTurns
  /** Seals import tokens. */
  readonly tokenSealer: TokenSealer
  readonly allowImportThroughMemory: boolean
  readonly lastUsage: Pick<LastUsage, 'find'>
  /** Something is due at once, of which the next round would tell only later. */
  readonly wake: () => void
  readonly related?: RelatedEvents
  /** Custom key stores; without it there are none. */
  readonly stores?: KeyStores
  /** Whether a binding in force permits a key of purpose `tls` to sign whatever it is given; without it none does. */
  readonly mayTlsKeySign?: (key: KeyName) => boolean
}

export function createKeyService(parts: KeyServiceParts): KeyService {
  const { catalog, hsm, partition, defaultGroup } = parts
  const whileUsable = createWhileUsable(catalog, partition, parts.now)
  const arnOf = (entry: KeyEntry): string => renderKeyArn(partition, entry.key)

  function requireUsage(entry: KeyEntry, usage: KeyEntry['key']['usage'], operation: string): void {
    if (entry.key.usage === usage) return
    const text = `${arnOf(entry)} key usage is ${entry.key.usage} which is not valid for ${operation}.`
    throw new GatewayError('KeyUsageInvalid', { text })
  }

  /** The registry row of an algorithm that this key offers and the module proved. */
  function requireAlgorithm<K extends Algorithm['kind']>(
    entry: KeyEntry,
    kind: K,
    name: string,
  ): Algorithm & { kind: K } {
    const { spec, usage, group } = entry.key
    const algorithm = algorithms.get(name)
    // The API names it and this gateway does not know it: SM2PKE and SM2DSA are for Regions in China.
    if (algorithm === undefined) throw new GatewayError('Unsupported', {})
    if (algorithm.kind !== kind || !algorithmsOf(spec, usage).includes(name)) {
      throw new GatewayError('KeyUsageInvalid', { text: `Algorithm ${name} is incompatible with key spec ${spec}.` })
    }
    if (!isProven(hsm.capabilities(group), algorithm)) throw new GatewayError('Unsupported', {})
    return algorithm as Algorithm & { kind: K }
  }

  function requireNoContext(context: EncryptionContext): void {
    if (Object.keys(context).length === 0) return
    const text = 'EncryptionContext is only valid for symmetric encryption KMS keys.'
    throw new GatewayError('ValidationFailed', { text })
  }

  function encryptWithPublicKey(
    entry: KeyEntry,
    name: string,
    algorithm: EncryptionAlgorithm,
    plaintext: Uint8Array,
  ): () => Buffer {
    const oaepHash = algorithm.hash ?? 'sha1'
    const maxBytes = specs[entry.key.spec].widthBytes - 2 * hashBytes[oaepHash] - 2
    if (plaintext.length > maxBytes) {
      const text = `Algorithm ${name} and key spec ${entry.key.spec} cannot encrypt data larger than ${maxBytes} bytes.`
      throw new GatewayError('ValidationFailed', { text })
    }
    const key = publicKeyOf(currentMaterial(entry))
    return () => publicEncrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, plaintext)
  }

  async function sealBlob(
    entry: KeyEntry,
    plaintext: Uint8Array,
    context: EncryptionContext,
    deadline: Deadline,
  ): Promise<Buffer> {
    const { key, header } = sealingOf(entry)
    const input = { prefix: header, context: encodeEncryptionContext(context), data: plaintext }
    const sealed = await whileUsable(entry, deadline, (limit) => hsm.encrypt(key, 'SEAL', input, limit))
    return Buffer.concat([header, sealed])
  }

  function openBlob(entry: KeyEntry, blob: Blob, context: EncryptionContext, deadline: Deadline): Promise<Buffer> {
    const material = entry.materials.find((row) => row.state !== 'Creating' && row.materialId.equals(blob.materialId))
    if (material === undefined || (material.construction === 'derived') !== blob.derived) {
      throw new GatewayError('CiphertextInvalid')
    }
    const input = { prefix: blob.header, context: encodeEncryptionContext(context), data: blob.sealed }
    return whileUsable(entry, deadline, (limit) => hsm.decrypt(hsmKeyOf(entry, material), 'SEAL', input, limit))
  }

  async function requireRoom(account: string, region: string): Promise<void> {
    if ((await catalog.countKeys(account, region)) < (parts.keysPerRegion ?? Number.POSITIVE_INFINITY)) return
    const text = `The account ${account} has the most keys that it may have in ${region}.`
    throw new GatewayError('LimitExceeded', { text })
  }

  const lifeCycle = createLifeCycle(parts)
  const { stores = noStores } = parts
  const storeKeys = createStoreKeys({ ...parts, stores, whileUsable, sealBlob, openBlob, requireRoom })

  const service: KeyService = {
    ...lifeCycle,
    ...createAliases(parts),
    ...createAdoption(parts),
    reconcile: (group, deadline) => reconcileGroup(parts, group, deadline),
    ...createGrants({ ...parts, stateOf: (entry) => (isInStore(entry) ? storeKeys.state(entry) : entry.key.state) }),
    ...createMultiRegion({ ...parts, requireRoom, events: parts.related }),
    ...createRotation(parts),
    ...createImport(parts),
    ...createTlsSigning({ hsm, partition, now: parts.now, whileUsable }),
    async setEnabled(entry, enabled) {
      await lifeCycle.setEnabled(entry, enabled)
      if (enabled) await service.resumeRotation(entry.key)
    },

    now: parts.now,

    storeOf: (entry) => (isInStore(entry) ? storeKeys.describe(entry) : undefined),

    condition(entry) {
      const state = isInStore(entry) ? storeKeys.state(entry) : stateAt(entry, parts.now)
      const materials = permanentMaterials(entry)
      const isWhole = materials.length > 0 && materials.every((material) => material.state !== 'Missing')
      if (entry.key.origin !== 'EXTERNAL' || !isWhole || state === 'PendingImport') return { state }
      const expiry = earliestExpiry(entry)
      return { state, imported: { expiresAt: expiry === Number.POSITIVE_INFINITY ? null : expiry } }
    },

    lastUsage: (entry) => parts.lastUsage.find(entry.key),

    keyArn: (name) => renderKeyArn(partition, name),
    aliasArn: (alias) => renderAliasArn(partition, alias),
    algorithmsOf,
    resolve: (reference, accepts, locale) => resolveKey(catalog, reference, accepts, locale),

    async create(request, locale, deadline) {
      if (request.store !== undefined) return storeKeys.create(request, locale, deadline)
      const group = request.group ?? defaultGroup
      const { spec, usage } = request
      if (!hsm.capabilities(group).specs[spec]?.includes(usage)) throw new GatewayError('Unsupported', {})
      // no wrapping algorithm is documented for their private keys
      const isLattice = specs[spec].family === 'ml-dsa' || specs[spec].family === 'ml-kem'
      if (request.origin === 'EXTERNAL' && isLattice) throw new GatewayError('Unsupported', {})
      await requireRoom(locale.account, locale.region)
      const name = { account: locale.account, region: locale.region, keyId: createKeyId(request.multiRegion) }
      const plan = { ...request, group, name }
      return request.origin === 'EXTERNAL' ? createEmptyKey(parts, plan) : createBackedKey(parts, plan, deadline)
    },

    async list(locale, after, limit) {
      const keyIds = await catalog.listKeys(locale.account, locale.region, after, limit + 1, kmsPurposes)
      return { keyIds: keyIds.slice(0, limit), more: keyIds.length > limit }
    },

    async encrypt(entry, request, deadline) {
      if (isInStore(entry)) return storeKeys.encrypt(entry, request, deadline)
      requireUsable(arnOf(entry), entry, parts.now)
      requireUsage(entry, 'ENCRYPT_DECRYPT', request.operation)
      const algorithm = requireAlgorithm(entry, 'encrypt', request.algorithm)
      if (algorithm.hash !== null) {
        requireNoContext(request.context)
        const encrypt = encryptWithPublicKey(entry, request.algorithm, algorithm, request.plaintext)
        if (request.dryRun) throw new GatewayError('DryRun')
        return { ciphertext: encrypt(), materialId: null }
      }
      if (request.dryRun) throw new GatewayError('DryRun')
      const ciphertext = await sealBlob(entry, request.plaintext, request.context, deadline)
      return { ciphertext, materialId: sealingOf(entry).materialId }
    },

    parseBlob(ciphertext) {
      const { keyId, materialId } = decodeBlob(ciphertext)
      return { keyId, materialId: materialId.toString('hex') }
    },

    async findByBlob(blob, locale) {
      const name = { account: locale.account, region: locale.region, keyId: blob.keyId }
      const entry = catalog.peekKey(name) ?? (await catalog.findKey(name))
      return entry && { arn: renderKeyArn(partition, name), account: name.account, entry }
    },

    async decrypt(entry, request, deadline) {
      if (isInStore(entry)) return storeKeys.decrypt(entry, request, deadline)
      requireUsable(arnOf(entry), entry, parts.now)
      // A blob of another key is IncorrectKey whatever kind of key was named, so the blob is read before the usage is judged.
      const blob = request.algorithm === 'SYMMETRIC_DEFAULT' ? decodeBlob(request.ciphertext) : undefined
      if (blob !== undefined && blob.keyId !== entry.key.keyId) throw new GatewayError('IncorrectKey')
      requireUsage(entry, 'ENCRYPT_DECRYPT', request.operation)
      const algorithm = requireAlgorithm(entry, 'encrypt', request.algorithm)
      let plaintext: Buffer
      let materialId: string | null = null
      if (blob !== undefined) {
        plaintext = await openBlob(entry, blob, request.context, deadline)
        materialId = blob.materialId.toString('hex')
      } else {
        requireNoContext(request.context)
        if (request.ciphertext.length !== specs[entry.key.spec].widthBytes) throw new GatewayError('CiphertextInvalid')
        const key = hsmKeyOf(entry, currentMaterial(entry))
        const input = { data: request.ciphertext }
        plaintext = await whileUsable(entry, deadline, (limit) => hsm.decrypt(key, algorithm.hsm, input, limit))
      }
      if (request.dryRun) {
        plaintext.fill(0)
        throw new GatewayError('DryRun')
      }
      return { plaintext, materialId }
    },

    async generateDataKey(entry, request, deadline) {
      if (isInStore(entry)) return storeKeys.generateDataKey(entry, request, deadline)
      requireUsable(arnOf(entry), entry, parts.now)
      requireUsage(entry, 'ENCRYPT_DECRYPT', request.operation)
      requireAlgorithm(entry, 'encrypt', 'SYMMETRIC_DEFAULT')
      if (request.dryRun) throw new GatewayError('DryRun')
      const { key, header, materialId } = sealingOf(entry)
      const input = { prefix: header, context: encodeEncryptionContext(request.context) }
      const { plaintext, sealed } = await whileUsable(entry, deadline, (limit) =>
        hsm.sealRandom(key, request.bytes, input, limit),
      )
      return { plaintext, ciphertext: Buffer.concat([header, sealed]), materialId }
    },

    async generateDataKeyPair(entry, request, deadline) {
      if (isInStore(entry)) {
        const text = `${arnOf(entry)} origin is ${entry.key.origin} which is not valid for this operation.`
        throw new GatewayError('Unsupported', { text })
      }
      requireUsable(arnOf(entry), entry, parts.now)
      requireUsage(entry, 'ENCRYPT_DECRYPT', request.operation)
      requireAlgorithm(entry, 'encrypt', 'SYMMETRIC_DEFAULT')
      if (!isPairSpec(request.pairSpec)) throw new GatewayError('Unsupported', {})
      if (request.dryRun) throw new GatewayError('DryRun')
      const { publicKey, privateKey } = await generateDataKeyPair(hsm, entry.key.group, request.pairSpec, deadline)
      try {
        const ciphertext = await sealBlob(entry, privateKey, request.context, deadline)
        const materialId = currentMaterial(entry).materialId.toString('hex')
        return { publicKey, privateKey, ciphertext, materialId }
      } catch (cause) {
        privateKey.fill(0)
        throw cause
      }
    },

    async deriveSharedSecret(entry, request, deadline) {
      requireUsable(arnOf(entry), entry, parts.now)
      requireUsage(entry, 'KEY_AGREEMENT', 'DeriveSharedSecret')
      requireAlgorithm(entry, 'agree', request.algorithm)
      const material = currentMaterial(entry)
      if (!isSameCurve(publicKeyOf(material), request.peerPublicKey)) throw new GatewayError('ValidationFailed', {})
      if (request.dryRun) throw new GatewayError('DryRun')
      const key = hsmKeyOf(entry, material)
      return whileUsable(entry, deadline, (limit) => hsm.derive(key, request.peerPublicKey, limit))
    },

    async encapsulate(entry, request) {
      requireUsable(arnOf(entry), entry, parts.now)
      requireUsage(entry, 'ENCAPSULATE_DECAPSULATE', 'Encapsulate')
      requireAlgorithm(entry, 'encapsulate', request.algorithm)
      if (request.dryRun) throw new GatewayError('DryRun')
      const { sharedKey, ciphertext } = await encapsulate(publicKeyOf(currentMaterial(entry)))
      return { secret: sharedKey, ciphertext }
    },

    async decapsulate(entry, request, deadline) {
      requireUsable(arnOf(entry), entry, parts.now)
      requireUsage(entry, 'ENCAPSULATE_DECAPSULATE', 'Decapsulate')
      requireAlgorithm(entry, 'encapsulate', request.algorithm)
      if (request.ciphertext.length !== specs[entry.key.spec].widthBytes) throw new GatewayError('CiphertextInvalid')
      if (request.dryRun) throw new GatewayError('DryRun')
      const key = hsmKeyOf(entry, currentMaterial(entry))
      return whileUsable(entry, deadline, (limit) => hsm.decapsulate(key, request.ciphertext, limit))
    },

    random: (_locale, bytes, deadline) => hsm.random(defaultGroup, bytes, deadline),

    async sign(entry, request, deadline) {
      const algorithm = prepareSignature(entry, request, 'Sign')
      const mechanism = signAlgorithmOf(algorithm, request.messageType)
      if (!hsm.capabilities(entry.key.group).algorithms.includes(mechanism)) throw new GatewayError('Unsupported', {})
      if (request.dryRun) throw new GatewayError('DryRun')
      const input = moduleInput(algorithm, request.message, request.messageType)
      const key = hsmKeyOf(entry, currentMaterial(entry))
      const raw = await whileUsable(entry, deadline, (limit) => hsm.sign(key, mechanism, input, limit))
      return { signature: algorithm.family === 'ecdsa' ? encodeEcdsaSignature(raw) : raw }
    },

    async verify(entry, request) {
      const algorithm = prepareSignature(entry, request, 'Verify')
      const { publicKey } = currentMaterial(entry)
      if (!(await isSignatureValid({ ...request, algorithm, publicKey }))) throw new GatewayError('SignatureInvalid')
      if (request.dryRun) throw new GatewayError('DryRun')
    },

    async mac(entry, request, deadline) {
      requireUsable(arnOf(entry), entry, parts.now)
      requireUsage(entry, 'GENERATE_VERIFY_MAC', request.operation)
      const algorithm = requireAlgorithm(entry, 'mac', request.algorithm)
      if (request.dryRun) throw new GatewayError('DryRun')
      const key = hsmKeyOf(entry, currentMaterial(entry))
      return whileUsable(entry, deadline, (limit) => hsm.mac(key, algorithm.hsm, request.message, limit))
    },

    async verifyMac(entry, request, deadline) {
      const { algorithm, message, mac } = request
      const expected = await service.mac(entry, { algorithm, message, operation: 'VerifyMac', dryRun: false }, deadline)
      const valid = expected.length === mac.length && timingSafeEqual(expected, mac)
      expected.fill(0)
      if (!valid) throw new GatewayError('MacInvalid')
      if (request.dryRun) throw new GatewayError('DryRun')
    },

    publicKey(entry) {
      requireUsable(arnOf(entry), entry, parts.now)
      const { publicKey } = currentMaterial(entry)
      if (publicKey.length === 0) throw new GatewayError('Unsupported', {})
      return publicKey
    },
  }

  /** Checks that Sign and Verify share. */
  function prepareSignature(
    entry: KeyEntry,
    request: { readonly algorithm: string; readonly message: Uint8Array; readonly messageType: string },
    operation: string,
  ): SigningAlgorithm {
    requireUsable(arnOf(entry), entry, parts.now)
    requireUsage(entry, 'SIGN_VERIFY', operation)
    if (operation === 'Sign') refuseTlsKey(arnOf(entry), entry, parts.mayTlsKeySign)
    const algorithm = requireAlgorithm(entry, 'sign', request.algorithm)
    if (!(algorithm.messageTypes as readonly string[]).includes(request.messageType)) {
      const text = `MessageType ${request.messageType} is not valid for algorithm ${request.algorithm}.`
      throw new GatewayError('ValidationFailed', { text })
    }
    const wanted = { DIGEST: algorithm.digestBytes, EXTERNAL_MU: externalMuBytes }[request.messageType]
    if (wanted !== undefined && request.message.length !== wanted) {
      const text = `Digest is invalid length for algorithm ${request.algorithm}.`
      throw new GatewayError('ValidationFailed', { text })
    }
    return algorithm
  }

  return service
}
