import { createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { expect, it } from 'vitest'
import { verifyEd25519ph } from '../../../../src/hsm/worker/ed25519ph.ts'

// RFC 8032 section 7.3
const publicKey = Buffer.from('ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf', 'hex')
const seed = Buffer.from('833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42', 'hex')
const signature = Buffer.from(
  '98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae4131f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406',
  'hex',
)
const message = Buffer.from('abc')

it('accepts the test vector of RFC 8032', () => {
  expect(verifyEd25519ph(publicKey, message, signature)).toBe(true)
})

it('refuses another message, signature or key', () => {
  expect(verifyEd25519ph(publicKey, Buffer.from('abd'), signature)).toBe(false)
  for (const at of [0, 31, 32, 63]) {
    const changed = Buffer.from(signature)
    changed[at] = changed[at]! ^ 1
    expect(verifyEd25519ph(publicKey, message, changed)).toBe(false)
  }
  expect(verifyEd25519ph(Buffer.alloc(32, 2), message, signature)).toBe(false)
  expect(verifyEd25519ph(publicKey, message, signature.subarray(1))).toBe(false)
})

it('refuses a plain Ed25519 signature of the same message', () => {
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed])
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  expect(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32).equals(publicKey)).toBe(true)
  expect(verifyEd25519ph(publicKey, message, sign(null, message, key))).toBe(false)
})
