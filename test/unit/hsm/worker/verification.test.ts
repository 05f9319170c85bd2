import { createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { expect, it } from 'vitest'
import { loadAddon, signatureScheme } from '../../../../src/hsm/worker/addon.ts'

// RFC 8032 section 7.3
const publicKey = Buffer.from('ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf', 'hex')
const seed = Buffer.from('833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42', 'hex')
const signature = Buffer.from(
  '98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae4131f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406',
  'hex',
)
const message = Buffer.from('abc')

function verifyEd25519ph(point: Buffer, content: Buffer, candidate: Buffer): Promise<boolean> {
  const spki = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), point])
  return loadAddon().verifySignature(signatureScheme.ed25519ph, '', spki, content, candidate)
}

it('accepts the Ed25519ph vector of RFC 8032', async () => {
  expect(await verifyEd25519ph(publicKey, message, signature)).toBe(true)
})

it('refuses another message, signature or key', async () => {
  expect(await verifyEd25519ph(publicKey, Buffer.from('abd'), signature)).toBe(false)
  for (const at of [0, 31, 32, 63]) {
    const changed = Buffer.from(signature)
    changed[at] = changed[at]! ^ 1
    expect(await verifyEd25519ph(publicKey, message, changed)).toBe(false)
  }
  expect(await verifyEd25519ph(Buffer.alloc(32, 2), message, signature)).toBe(false)
  expect(await verifyEd25519ph(publicKey, message, signature.subarray(1))).toBe(false)
})

it('refuses a plain Ed25519 signature of the same message', async () => {
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed])
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  expect(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32).equals(publicKey)).toBe(true)
  expect(await verifyEd25519ph(publicKey, message, sign(null, message, key))).toBe(false)
})

it('throws on a scheme that does not exist', () => {
  const { verifySignature } = loadAddon()
  expect(() => verifySignature(8 as never, '', publicKey, message, signature)).toThrow(RangeError)
  expect(() => verifySignature(0 as never, '', publicKey, message, signature)).toThrow(TypeError)
})
