/**
 * Signatures of keys of purpose `tls`, for the door that serves TLS libraries: a tuple of algorithm and hash instead of KMS's names, since TLS
 * pairs any hash with any curve. State, purpose and capabilities are judged as for every other use; the policies of tokens are the door's.
 */
import { createHash } from 'node:crypto'
import type { Catalog, KeyEntry, MaterialRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { Hsm } from '../hsm/port.ts'
import { createWhileUsable } from './admission.ts'
import { specs } from './algorithms.ts'
import { currentMaterial, hsmKeyOf } from './backing-key.ts'
import { renderKeyArn } from './identifiers.ts'
import { requireUsable } from './key-state.ts'
import type { TlsSigner } from './keys.ts'
import { encodeEcdsaSignature } from './signature.ts'

export interface TlsSignerParts {
  readonly catalog: Catalog
  readonly hsm: Hsm
  readonly partition: string
  /** Wall time in epoch milliseconds. */
  readonly now: () => number
}

export function createTlsSigner({ catalog, hsm, partition, now }: TlsSignerParts): TlsSigner {
  const whileUsable = createWhileUsable(catalog, partition, now)
  const spkiDigests = new WeakMap<MaterialRecord, Buffer>()

  return {
    keyArn: (name) => renderKeyArn(partition, name),

    async find(name) {
      const entry = catalog.peekKey(name) ?? (await catalog.findKey(name))
      if (entry === undefined || entry.key.purpose !== 'tls') {
        throw new GatewayError('KeyNotFound', { text: `Key '${renderKeyArn(partition, name)}' does not exist` })
      }
      return entry
    },

    spkiDigest(entry) {
      const material = currentMaterial(entry)
      let digest = spkiDigests.get(material)
      if (digest === undefined) {
        digest = createHash('sha256').update(material.publicKey).digest()
        spkiDigests.set(material, digest)
      }
      return digest
    },

    async sign(entry, algorithm, input, deadline, saltBytes) {
      requireUsable(renderKeyArn(partition, entry.key), entry, now)
      requireFit(entry, algorithm)
      if (!hsm.capabilities(entry.key.group).algorithms.includes(algorithm)) throw new GatewayError('Unsupported', {})
      const key = hsmKeyOf(entry, currentMaterial(entry))
      if (saltBytes !== undefined) {
        const salted = encodeSalted(entry, input, saltBytes)
        return whileUsable(entry, deadline, (limit) => hsm.sign(key, 'RSASSA_PSS_SALTED', salted, limit))
      }
      const isEcdsa = algorithm === 'ECDSA'
      const fitting = isEcdsa ? leftmost(input, specs[entry.key.spec].widthBytes) : input
      const raw = await whileUsable(entry, deadline, (limit) => hsm.sign(key, algorithm, fitting, limit))
      return isEcdsa ? encodeEcdsaSignature(raw) : raw
    },
  }
}

/** @throws GatewayError `KeyUsageInvalid` */
function requireFit({ key }: KeyEntry, algorithm: string): void {
  const family = algorithm.startsWith('RSASSA') ? 'rsa' : algorithm === 'ECDSA' ? 'ec' : 'ed25519'
  if (specs[key.spec].family === family && key.usage === 'SIGN_VERIFY') return
  throw new GatewayError('KeyUsageInvalid', {
    text: `Algorithm ${algorithm} is incompatible with key spec ${key.spec}.`,
  })
}

const saltedHashes: ReadonlyMap<number, number> = new Map([
  [32, 1],
  [48, 2],
  [64, 3],
])

/** Input of RSASSA_PSS_SALTED. @throws GatewayError `Unsupported` when the modulus leaves no room for the salt (RFC 8017, section 9.1.1). */
function encodeSalted({ key }: KeyEntry, digest: Uint8Array, saltBytes: number): Buffer {
  const hash = saltedHashes.get(digest.length)
  const most = specs[key.spec].widthBytes - digest.length - 2
  if (hash === undefined || saltBytes > most) {
    throw new GatewayError('Unsupported', { text: `a salt of ${saltBytes} bytes; ${most} fit` })
  }
  return Buffer.concat([Uint8Array.of(hash, saltBytes >> 8, saltBytes), digest])
}

/** ECDSA signs the leftmost bits of a digest that is longer than the order (FIPS 186-5, section 6.4.1); modules differ in whether they cut. */
function leftmost(digest: Uint8Array, bytes: number): Uint8Array {
  return digest.length > bytes ? digest.subarray(0, bytes) : digest
}
