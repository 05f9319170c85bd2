/**
 * Whether an RSA public key has a form that can be trusted (FIPS 186-5, section 5.1 and A.1.1). What its private half is made of, nobody sees; what
 * the public half gives away is refused: exponents that make signatures forgeable, and moduli that anybody factors. Pure.
 */
import { createPublicKey } from 'node:crypto'

/** 2^16 < e < 2^256. */
const leastExponent = 1n << 16n
const exponentLimit = 1n << 256n

const smallPrimes = [
  3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113,
  127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211, 223, 227, 229, 233, 239, 241,
  251,
].map(BigInt)

export function isSoundRsa(spki: Uint8Array): boolean {
  const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  const { publicExponent = 0n } = key.asymmetricKeyDetails ?? {}
  if (publicExponent <= leastExponent || publicExponent >= exponentLimit || publicExponent % 2n === 0n) return false
  const { n = '' } = key.export({ format: 'jwk' }) as { readonly n?: string }
  const modulus = BigInt(`0x${Buffer.from(n, 'base64url').toString('hex')}`)
  return modulus % 2n === 1n && smallPrimes.every((prime) => modulus % prime !== 0n)
}
