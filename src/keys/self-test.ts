/** Proves that a new backing key works before anyone relies on it: one use, checked on the gateway's side of the module. */
import {
  constants,
  createHash,
  createPublicKey,
  diffieHellman,
  encapsulate,
  generateKeyPairSync,
  publicEncrypt,
  randomBytes,
} from 'node:crypto'
import type { Deadline } from '../call.ts'
import { GatewayError } from '../error.ts'
import type { Hsm, HsmKey, KeyUsage } from '../hsm/port.ts'
import { algorithms, algorithmsOf, type MacAlgorithmRow, type SigningAlgorithm, specs } from './algorithms.ts'
import { encodeEcdsaSignature, isSignatureValid } from './signature.ts'

/** @throws GatewayError `HsmFailure` when the key does not do what it should. */
export async function testBackingKey(
  hsm: Hsm,
  key: HsmKey,
  usage: KeyUsage,
  publicKey: Uint8Array,
  deadline: Deadline,
): Promise<void> {
  if (!(await backingKeyWorks(hsm, key, usage, publicKey, deadline))) {
    throw new GatewayError('HsmFailure', undefined, { detail: `the new ${key.spec} key failed its first use` })
  }
}

/** One use with everything that the key's usage needs. */
export async function backingKeyWorks(
  hsm: Hsm,
  key: HsmKey,
  usage: KeyUsage,
  spki: Uint8Array,
  deadline: Deadline,
): Promise<boolean> {
  switch (usage) {
    case 'ENCRYPT_DECRYPT': {
      const data = randomBytes(16)
      if (specs[key.spec].family === 'aes') {
        const algorithm = key.purpose === 'xks' ? 'AES_GCM' : 'SEAL'
        const context = Buffer.from('hsmgate self-test')
        const sealed = await hsm.encrypt(key, algorithm, { context, data }, deadline)
        return data.equals(await hsm.decrypt(key, algorithm, { context, data: sealed }, deadline))
      }
      const encrypted = publicEncrypt(
        { key: importSpki(spki), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha1' },
        data,
      )
      return data.equals(await hsm.decrypt(key, 'RSAES_OAEP_SHA_1', { data: encrypted }, deadline))
    }
    case 'SIGN_VERIFY': {
      const algorithm = algorithms.get(algorithmsOf(key.spec, usage)[0] ?? '') as SigningAlgorithm
      const message = randomBytes(32)
      const input = algorithm.hash === null ? message : createHash(algorithm.hash).update(message).digest()
      const raw = await hsm.sign(key, algorithm.hsm, input, deadline)
      const signature = algorithm.family === 'ecdsa' ? encodeEcdsaSignature(raw) : raw
      const request = { algorithm, publicKey: spki, message, messageType: 'RAW', signature }
      return isSignatureValid(request)
    }
    case 'GENERATE_VERIFY_MAC': {
      const algorithm = algorithms.get(algorithmsOf(key.spec, usage)[0] ?? '') as MacAlgorithmRow
      const [first, second] = await Promise.all(
        [1, 2].map((n) => hsm.mac(key, algorithm.hsm, Buffer.from(`hsmgate self-test ${n}`), deadline)),
      )
      return first?.length === algorithm.macBytes && second?.length === algorithm.macBytes && !first.equals(second)
    }
    case 'KEY_AGREEMENT': {
      const publicKey = importSpki(spki)
      const namedCurve = publicKey.asymmetricKeyDetails?.namedCurve ?? ''
      const peer = generateKeyPairSync('ec', { namedCurve })
      const expected = diffieHellman({ privateKey: peer.privateKey, publicKey })
      const peerSpki = peer.publicKey.export({ format: 'der', type: 'spki' })
      return expected.equals(await hsm.derive(key, peerSpki, deadline))
    }
    case 'ENCAPSULATE_DECAPSULATE': {
      const { ciphertext, sharedKey } = encapsulate(importSpki(spki))
      return sharedKey.equals(await hsm.decapsulate(key, ciphertext, deadline))
    }
    default:
      // Wrapping keys are proven by the probe for their spec.
      return true
  }
}

function importSpki(spki: Uint8Array) {
  return createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
}
