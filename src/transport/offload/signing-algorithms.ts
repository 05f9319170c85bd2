/** The algorithms of REQUEST frames: which HSM algorithm each (algorithm, hash) stands for, and how audit records name them. */
import type { SignAlgorithm } from '../../hsm/port.ts'
import { hashAlgorithms, type Request, signatureAlgorithms } from './frames.ts'

export interface SigningRow {
  readonly algorithm: number
  readonly hash: number
  /** KMS's name, as the audit record and condition keys have it. */
  readonly name: string
  readonly hsm: SignAlgorithm
  /** Of node:crypto; null: the message itself is signed. */
  readonly hashName: 'sha256' | 'sha384' | 'sha512' | null
  readonly hashBytes: number
}

const { sha256, sha384, sha512, none } = hashAlgorithms

function rows(): readonly SigningRow[] {
  const hashes = [
    { hash: sha256, bits: 256, hashName: 'sha256', hashBytes: 32 },
    { hash: sha384, bits: 384, hashName: 'sha384', hashBytes: 48 },
    { hash: sha512, bits: 512, hashName: 'sha512', hashBytes: 64 },
  ] as const
  return [
    ...hashes.flatMap(({ hash, bits, hashName, hashBytes }): SigningRow[] => [
      {
        algorithm: signatureAlgorithms.rsaPkcs1,
        hash,
        name: `RSASSA_PKCS1_V1_5_SHA_${bits}`,
        hsm: `RSASSA_PKCS1_V1_5_SHA_${bits}`,
        hashName,
        hashBytes,
      },
      {
        algorithm: signatureAlgorithms.rsaPss,
        hash,
        name: `RSASSA_PSS_SHA_${bits}`,
        hsm: `RSASSA_PSS_SHA_${bits}`,
        hashName,
        hashBytes,
      },
      { algorithm: signatureAlgorithms.ecdsa, hash, name: `ECDSA_SHA_${bits}`, hsm: 'ECDSA', hashName, hashBytes },
    ]),
    {
      algorithm: signatureAlgorithms.eddsa,
      hash: none,
      name: 'ED25519_SHA_512',
      hsm: 'ED25519',
      hashName: null,
      hashBytes: 0,
    },
  ]
}

const byNumbers: ReadonlyMap<number, SigningRow> = new Map(rows().map((row) => [row.algorithm * 256 + row.hash, row]))

export function findSigningRow({ algorithm, hash }: Pick<Request, 'algorithm' | 'hash'>): SigningRow | undefined {
  return byNumbers.get(algorithm * 256 + hash)
}
