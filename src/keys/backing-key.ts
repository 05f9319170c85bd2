/** From catalog rows to the HSM layer's name of an object, and to the public key of a pair. Cached on the frozen rows themselves. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { KeyEntry, MaterialRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { HsmKey } from '../hsm/port.ts'
import { encodeBlobHeader } from './ciphertext-blob.ts'

/** What all ciphertexts under one key material have in common. */
export interface Sealing {
  readonly key: HsmKey
  readonly header: Buffer
  /** Lower-case hex. */
  readonly materialId: string
}

const hsmKeys = new WeakMap<MaterialRecord, HsmKey>()
const publicKeys = new WeakMap<MaterialRecord, KeyObject>()
const sealings = new WeakMap<MaterialRecord, Sealing>()

export function hsmKeyOf(entry: KeyEntry, material: MaterialRecord): HsmKey {
  let key = hsmKeys.get(material)
  if (key === undefined) {
    const { group, purpose, spec } = entry.key
    const { objectId, construction, label } = material
    key = Object.freeze({ group, purpose, spec, construction, objectId, ...(label === null ? {} : { label }) })
    hsmKeys.set(material, key)
  }
  return key
}

/** @throws GatewayError `KeyUnavailable` when the key has no material now. */
export function currentMaterial(entry: KeyEntry): MaterialRecord {
  const material = entry.materials.find((row) => row.number === entry.key.currentMaterial)
  if (material === undefined) {
    throw new GatewayError('KeyUnavailable', undefined, { detail: `key ${entry.key.keyId} has no current backing key` })
  }
  return material
}

/** Of the current material. @throws GatewayError `KeyUnavailable` */
export function sealingOf(entry: KeyEntry): Sealing {
  const material = currentMaterial(entry)
  let sealing = sealings.get(material)
  if (sealing === undefined) {
    const { materialId, construction } = material
    const header = encodeBlobHeader({ keyId: entry.key.keyId, materialId, derived: construction === 'derived' })
    sealing = Object.freeze({ key: hsmKeyOf(entry, material), header, materialId: materialId.toString('hex') })
    sealings.set(material, sealing)
  }
  return sealing
}

export function publicKeyOf(material: MaterialRecord): KeyObject {
  let key = publicKeys.get(material)
  if (key === undefined) {
    key = createPublicKey({ key: material.publicKey, format: 'der', type: 'spki' })
    publicKeys.set(material, key)
  }
  return key
}

/**
 * Whether `spki` is the DER SubjectPublicKeyInfo of a point of the same curve, with nothing after it. The curve must be given by its name (RFC 5480,
 * section 2.1.1), though OpenSSL takes its parameters too; OpenSSL refuses points off the curve.
 */
export function isSameCurve(publicKey: KeyObject, spki: Uint8Array): boolean {
  const own = algorithmOf(publicKey.export({ format: 'der', type: 'spki' }))
  const algorithm = algorithmOf(spki)
  if (own === undefined || algorithm === undefined || Buffer.compare(own, algorithm) !== 0) return false
  try {
    const peer = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
    // the point at infinity has no coordinates
    return peer.export({ format: 'jwk' }).x !== undefined
  } catch {
    return false
  }
}

/** The AlgorithmIdentifier of a SubjectPublicKeyInfo of less than 256 bytes that is as long as it says. */
function algorithmOf(spki: Uint8Array): Uint8Array | undefined {
  const [tag, first = 0, second = 0] = spki
  const isLong = first === 0x81
  const start = isLong ? 3 : 2
  if (tag !== 0x30 || (!isLong && first >= 0x80) || spki.length !== start + (isLong ? second : first)) return undefined
  return spki.subarray(start, start + 2 + (spki[start + 1] ?? 0))
}
