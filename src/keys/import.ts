/**
 * Import of key material (AWS KMS Developer Guide, "Importing key material"). A key of origin EXTERNAL begins without material; what arrives
 * is opened in the module as a session object first, so that nothing changes unless it is what the key takes, and then once more to stay.
 *
 * A material that was imported once belongs to the key: it can be deleted and expire, and the same one, no other, can be imported again.
 */
import type { Deadline } from '../call.ts'
import type { KeyEntry, KeyState, MaterialRecord } from '../catalog/catalog.ts'
import { GatewayError, isCode } from '../error.ts'
import type { Capabilities, HsmKey, WrapAlgorithm } from '../hsm/port.ts'
import { addMaterial } from './added-material.ts'
import { specs } from './algorithms.ts'
import { currentMaterial, hsmKeyOf } from './backing-key.ts'
import { type CreationParts, type Examined, isPair, materialIdOf, newObjectId } from './create-key.ts'
import { renderKeyArn } from './identifiers.ts'
import { createImportKeys, type ImportKeySpec, importKeyName } from './import-key.ts'
import {
  type ImportAlgorithm,
  importTokenMs,
  openImportToken,
  sealImportToken,
  type TokenSealer,
} from './import-token.ts'
import { lifeOf, pendingMaterial, permanentMaterials, toRevision, withMaterialLife } from './key-life.ts'
import { refuseStates } from './key-state.ts'
import type { KeyTurns } from './key-turns.ts'
import type { ImportRequest, KeyImport } from './keys.ts'
import { recoverPublicKey } from './recover-public-key.ts'
import { finishRemovals, removeMaterial } from './remove-material.ts'
import { isReplica } from './replica.ts'
import { isSoundRsa } from './rsa-form.ts'
import { testBackingKey } from './self-test.ts'

export interface ImportParts extends CreationParts {
  readonly partition: string
  readonly turns: KeyTurns
  readonly tokenSealer: TokenSealer
  /** A module that can't unwrap something itself may show the imported key to its worker. */
  readonly allowImportThroughMemory: boolean
}

const pendingDeletion: readonly KeyState[] = ['PendingDeletion', 'PendingReplicaDeletion']

export function createImport(parts: ImportParts): KeyImport {
  const { catalog, hsm, partition, turns, now } = parts
  const importKeys = createImportKeys(parts)
  const arnOf = (entry: KeyEntry) => renderKeyArn(partition, entry.key)

  function requireExternal(entry: KeyEntry, forbidden: readonly KeyState[]): void {
    refuseStates(arnOf(entry), entry.key.state, forbidden)
    if (entry.key.origin === 'EXTERNAL') return
    const text = `${arnOf(entry)} origin is ${entry.key.origin} which is not valid for this operation.`
    throw new GatewayError('Unsupported', { text })
  }

  return {
    async importParameters(entry, { algorithm, wrappingSpec }, deadline) {
      requireExternal(entry, [...pendingDeletion, 'Creating', 'Updating'])
      const proven = hsm.capabilities(entry.key.group)
      if (!isImportAlgorithm(algorithm) || !canUnwrap(parts, proven, algorithm, wrappingSpec as ImportKeySpec)) {
        throw new GatewayError('Unsupported', {})
      }
      requireFitting(entry, algorithm, wrappingSpec)
      const wrapping = await importKeys(entry, wrappingSpec as ImportKeySpec, deadline)
      const issuedAt = now()
      const token = { key: entry.key, algorithm, wrappingKeyId: wrapping.key.keyId, issuedAt }
      return {
        token: await sealImportToken(parts.tokenSealer, token),
        publicKey: currentMaterial(wrapping).publicKey,
        validTo: issuedAt + importTokenMs,
      }
    },

    async importMaterial(entry, request, deadline) {
      requireExternal(entry, [...pendingDeletion, 'Creating'])
      const isSymmetric = entry.key.spec === 'SYMMETRIC_DEFAULT'
      if (!isSymmetric) requireNoSymmetricMembers(request)
      const token = await openImportToken(parts.tokenSealer, request.token, entry.key, now())
      const wrapping = await catalog.findKey(importKeyName(token.wrappingKeyId))
      if (wrapping === undefined) throw new GatewayError('ImportTokenExpired')
      const unwrapping = hsmKeyOf(wrapping, currentMaterial(wrapping))
      const { algorithm } = token
      const arrived = await preview(parts, entry, unwrapping, algorithm, request.encrypted, deadline)
      const shared = await findSharedRole(parts, entry, arrived.materialId)
      const imported = {
        expiresAt: request.expiresAt,
        ...(request.description === undefined ? {} : { description: request.description }),
      }
      const materialId = arrived.materialId.toString('hex')

      return turns(entry.key, async () => {
        const found = await finishRemovals(parts, (await catalog.findKey(entry.key)) ?? entry, deadline)
        const plan = planImport(found, arrived.materialId, request, arnOf(found), shared)
        if (plan.kind === 'refresh') {
          await catalog.reviseKey(entry.key, (latest) => {
            requireExternal(latest, pendingDeletion)
            planImport(latest, arrived.materialId, request, arnOf(latest), shared)
            const life = lifeOf(latest)
            const before = life.materials?.[plan.number] ?? {}
            const next = { ...before, imported: { ...before.imported, ...imported } }
            return toRevision(latest, {
              life: { ...life, materials: withMaterialLife(life.materials, plan.number, next) },
            })
          })
          return { materialId }
        }
        const { role } = plan
        const becoming = {
          kind: 'import',
          role,
          ...(plan.replaces === undefined ? {} : { replaces: plan.replaces }),
        } as const
        const review = (latest: KeyEntry) => {
          requireExternal(latest, pendingDeletion)
          if (latest.materials.some(({ state }) => state === 'Creating')) {
            throw new GatewayError('KeyUnavailable', undefined, { detail: 'another import of this key is unfinished' })
          }
          planImport(latest, arrived.materialId, request, arnOf(latest), shared)
        }
        await addMaterial(
          parts,
          entry,
          {
            review,
            becoming,
            imported,
            expected: arrived,
            make: (intent, limit) => hsm.unwrap(unwrapping, algorithm, request.encrypted, intent, limit),
          },
          deadline,
        )
        return { materialId }
      })
    },

    async deleteMaterial(entry, materialId, deadline) {
      requireExternal(entry, ['Creating', 'Updating'])
      if (materialId !== undefined && entry.key.spec !== 'SYMMETRIC_DEFAULT') {
        throw new GatewayError('ValidationFailed', {
          text: 'KeyMaterialId is only valid for symmetric encryption KMS keys.',
        })
      }
      return turns(entry.key, async () => {
        const found = (await catalog.findKey(entry.key)) ?? entry
        const material = chooseMaterial(found, materialId, arnOf(found))
        if (material === undefined) return {}
        if (material.state !== 'Missing') await removeMaterial(parts, found, material, deadline)
        return { materialId: material.materialId.toString('hex') }
      })
    },
  }
}

/** Nothing at all was imported yet: undefined. @throws GatewayError `NotFound` for an id that is not the key's */
function chooseMaterial(entry: KeyEntry, materialId: string | undefined, arn: string): MaterialRecord | undefined {
  if (materialId === undefined) return entry.materials.find(({ number }) => number === entry.key.currentMaterial)
  const material = entry.materials.find(
    (row) => row.state !== 'Creating' && row.materialId.toString('hex') === materialId,
  )
  if (material !== undefined) return material
  throw new GatewayError('NotFound', { text: `Key material (id: ${materialId}) is not associated with ${arn}.` })
}

const importAlgorithms: readonly string[] = [
  'RSAES_OAEP_SHA_1',
  'RSAES_OAEP_SHA_256',
  'RSA_AES_KEY_WRAP_SHA_1',
  'RSA_AES_KEY_WRAP_SHA_256',
] satisfies readonly WrapAlgorithm[]

function isImportAlgorithm(name: string): name is ImportAlgorithm {
  return importAlgorithms.includes(name)
}

function canUnwrap(
  { allowImportThroughMemory }: ImportParts,
  proven: Capabilities,
  algorithm: ImportAlgorithm,
  spec: ImportKeySpec,
): boolean {
  if (!proven.specs[spec]?.includes('WRAP_UNWRAP')) return false
  if (algorithm.startsWith('RSA_AES_')) return proven.algorithms.includes(algorithm)
  if (proven.algorithms.includes(`UNWRAP ${algorithm}`)) return true
  return algorithm === 'RSAES_OAEP_SHA_256' && proven.oaepSha256 === 'raw' && allowImportThroughMemory
}

/** AWS KMS Developer Guide, "Step 2: Download the wrapping public key and import token", table of wrapping algorithms. */
function requireFitting(entry: KeyEntry, algorithm: ImportAlgorithm, wrappingSpec: string): void {
  const { spec } = entry.key
  const { family } = specs[spec]
  const isDirect = algorithm.startsWith('RSAES_')
  const fits = isDirect ? family !== 'rsa' && !(spec === 'ECC_NIST_P521' && wrappingSpec === 'RSA_2048') : isPair(spec)
  if (fits) return
  // The refusal is documented, its words are not.
  const text = `WrappingAlgorithm ${algorithm} with WrappingKeySpec ${wrappingSpec} is not valid for KeySpec ${spec}.`
  throw new GatewayError('ValidationFailed', { text })
}

function requireNoSymmetricMembers(request: ImportRequest): void {
  const named = [
    ['ImportType', request.importType],
    ['KeyMaterialDescription', request.description],
    ['KeyMaterialId', request.materialId],
  ].find(([, value]) => value !== undefined)
  if (named === undefined) return
  throw new GatewayError('ValidationFailed', { text: `${named[0]} is only valid for symmetric encryption KMS keys.` })
}

/**
 * What was wrapped, as a session object that is gone again: its id and public key, and that it works. @throws GatewayError
 * `CiphertextInvalid` when it does not open, `KeyMaterialIncorrect` when it is not what the key takes
 */
async function preview(
  { hsm }: ImportParts,
  entry: KeyEntry,
  unwrapping: HsmKey,
  algorithm: ImportAlgorithm,
  encrypted: Uint8Array,
  deadline: Deadline,
): Promise<Pick<Examined, 'materialId' | 'publicKey'>> {
  const { group, spec, purpose, keyId } = entry.key
  // An agreement key shows the sign of its public point to nobody, so here it signs.
  const usage = entry.key.usage === 'KEY_AGREEMENT' ? 'SIGN_VERIFY' : entry.key.usage
  const intent = {
    group,
    spec,
    usage,
    purpose,
    keyId,
    objectId: newObjectId(),
    number: 0,
    residence: 'session',
  } as const
  const { key, publicKey: shown } = await hsm.unwrap(unwrapping, algorithm, encrypted, intent, deadline)
  try {
    const publicKey =
      shown === null && specs[spec].family === 'ec'
        ? await recoverPublicKey(hsm, key, deadline)
        : Buffer.from(shown ?? [])
    if (specs[spec].family === 'rsa' && !isSoundRsa(publicKey)) throw new GatewayError('KeyMaterialIncorrect')
    await testBackingKey(hsm, key, usage, publicKey, deadline)
    return { publicKey, materialId: await materialIdOf(hsm, key, keyId, publicKey, deadline) }
  } catch (cause) {
    // The module takes keys that it then can't use.
    throw isCode(cause, 'HsmFailure') ? new GatewayError('KeyMaterialIncorrect', undefined, { cause }) : cause
  } finally {
    await hsm.destroy(key, deadline).catch(() => {})
  }
}

type MaterialRole = 'Current' | 'NonCurrent' | 'Pending'

/**
 * Related keys decrypt for one another, so a replica takes what its primary has and nothing else, and for the same. Undefined: the key is no
 * replica. @throws GatewayError `KeyMaterialIncorrect`
 */
async function findSharedRole(
  { catalog }: ImportParts,
  entry: KeyEntry,
  materialId: Buffer,
): Promise<MaterialRole | undefined> {
  const { related } = entry.key
  if (related === undefined || !isReplica(entry)) return undefined
  const primary = await catalog.findKey({ ...entry.key, region: related.primary })
  const row = primary?.materials.find(({ state, materialId: id }) => state !== 'Creating' && id.equals(materialId))
  if (primary === undefined || row === undefined) throw new GatewayError('KeyMaterialIncorrect')
  if (row.state === 'Pending') return 'Pending'
  return row.number === primary.key.currentMaterial ? 'Current' : 'NonCurrent'
}

type ImportPlan =
  | { readonly kind: 'add'; readonly role: MaterialRole; readonly replaces?: number }
  | { readonly kind: 'refresh'; readonly number: number }

/** Where a material goes in this key. @throws GatewayError `KeyMaterialIncorrect`, `KeyStateInvalid` */
function planImport(
  entry: KeyEntry,
  materialId: Buffer,
  request: ImportRequest,
  arn: string,
  shared: MaterialRole | undefined,
): ImportPlan {
  const permanent = permanentMaterials(entry)
  const pending = pendingMaterial(entry)
  const importType =
    request.importType ??
    (permanent.length === 0 && pending === undefined ? 'NEW_KEY_MATERIAL' : 'EXISTING_KEY_MATERIAL')
  const known = [...permanent, ...(pending === undefined ? [] : [pending])].find((row) =>
    row.materialId.equals(materialId),
  )
  const refusePending = (): void => {
    if (pending === undefined) return
    const ids = [materialId, pending.materialId].map((id) => id.toString('hex'))
    const text = `New key material (id: ${ids[0]}) cannot be imported into KMS key ${arn}, because another key material (id: ${ids[1]}) is pending rotation.`
    throw new GatewayError('KeyStateInvalid', { text })
  }
  // what a replica does not have yet exists in its primary, whichever way the request calls it
  if (known === undefined && shared !== undefined) {
    if (shared === 'Pending') refusePending()
    return { kind: 'add', role: shared }
  }
  if (importType === 'EXISTING_KEY_MATERIAL') {
    if (known === undefined || (request.materialId ?? materialId.toString('hex')) !== materialId.toString('hex')) {
      throw new GatewayError('KeyMaterialIncorrect')
    }
    if (known.state !== 'Missing') return { kind: 'refresh', number: known.number }
    const role = known.number === entry.key.currentMaterial ? 'Current' : 'NonCurrent'
    return { kind: 'add', role, replaces: known.number }
  }
  if (known !== undefined && known === pending) return { kind: 'refresh', number: known.number }
  // It belongs to the key already; nothing about it is new.
  if (known !== undefined) throw new GatewayError('KeyMaterialIncorrect')
  if (permanent.length === 0) return { kind: 'add', role: 'Current' }
  refusePending()
  return { kind: 'add', role: 'Pending' }
}
