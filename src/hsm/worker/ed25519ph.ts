/**
 * Verification of Ed25519ph (RFC 8032 section 5.1, phflag 1, empty context), which node:crypto has no interface for. For the probe alone:
 * public values only, a few milliseconds, not constant time. BigInt in extended coordinates (RFC 8032 section 5.1.4).
 */
import { createHash } from 'node:crypto'

const p = 2n ** 255n - 19n
const order = 2n ** 252n + 27742317777372353535851937790883648493n
const d = mod(-121665n * invert(121666n))
const sqrtMinusOne = power(2n, (p - 1n) / 4n)

/** x = X/Z, y = Y/Z, x * y = T/Z. */
type Point = readonly [X: bigint, Y: bigint, Z: bigint, T: bigint]
const neutral: Point = [0n, 1n, 1n, 0n]
const base = affine(
  15112221349535400772501151409588531511454012693041857206046113283949847762202n,
  46316835694926478169428394003475163141307993866256225615783033603165251855960n,
)

/** "SigEd25519 no Ed25519 collisions", phflag, length of the context. */
const dom2 = Buffer.concat([Buffer.from('SigEd25519 no Ed25519 collisions'), Buffer.from([1, 0])])

/** @param message what was hashed and signed (SHA-512 is applied here) */
export function verifyEd25519ph(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== 32 || signature.length !== 64) return false
  const s = littleEndian(signature.subarray(32))
  const a = decodePoint(publicKey)
  const r = decodePoint(signature.subarray(0, 32))
  if (a === undefined || r === undefined || s >= order) return false
  const prehash = createHash('sha512').update(message).digest()
  const hash = createHash('sha512').update(dom2).update(signature.subarray(0, 32)).update(publicKey).update(prehash)
  const k = littleEndian(hash.digest()) % order
  const left = multiply(base, s)
  const right = add(r, multiply(a, k))
  return mod(left[0] * right[2] - right[0] * left[2]) === 0n && mod(left[1] * right[2] - right[1] * left[2]) === 0n
}

function decodePoint(bytes: Uint8Array): Point | undefined {
  const encoded = littleEndian(bytes)
  const y = encoded & (2n ** 255n - 1n)
  if (y >= p) return undefined
  const u = mod(y * y - 1n)
  const v = mod(d * y * y + 1n)
  const v3 = mod(v * v * v)
  let x = mod(u * v3 * power(mod(u * v3 * v3 * v), (p - 5n) / 8n))
  if (mod(v * x * x) !== u) x = mod(x * sqrtMinusOne)
  if (mod(v * x * x) !== u) return undefined
  return affine((x & 1n) === encoded >> 255n ? x : mod(-x), y)
}

function affine(x: bigint, y: bigint): Point {
  return [x, y, 1n, mod(x * y)]
}

function add([x1, y1, z1, t1]: Point, [x2, y2, z2, t2]: Point): Point {
  const a = mod((y1 - x1) * (y2 - x2))
  const b = mod((y1 + x1) * (y2 + x2))
  const c = mod(2n * d * mod(t1 * t2))
  const e = mod(2n * z1 * z2)
  return [mod((b - a) * (e - c)), mod((e + c) * (b + a)), mod((e - c) * (e + c)), mod((b - a) * (b + a))]
}

function multiply(point: Point, scalar: bigint): Point {
  let sum = neutral
  let doubled = point
  for (let rest = scalar; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) sum = add(sum, doubled)
    doubled = add(doubled, doubled)
  }
  return sum
}

function invert(value: bigint): bigint {
  return power(mod(value), p - 2n)
}

function power(value: bigint, exponent: bigint): bigint {
  let result = 1n
  let square = value
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) result = mod(result * square)
    square = mod(square * square)
  }
  return result
}

function mod(value: bigint): bigint {
  const rest = value % p
  return rest < 0n ? rest + p : rest
}

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`)
}
