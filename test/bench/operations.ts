/** What is measured: per operation its KMS request, the same work for the raw module, and the share of the combined ceiling to reach. */
import { randomBytes } from 'node:crypto'
import type { Ask } from './client.ts'

export interface BenchKeys {
  readonly rsa: string
  readonly p256: string
  readonly aes: string
  readonly hmac: string
}

export interface BenchOperation {
  readonly name: string
  /** KMS operation. */
  readonly target: string
  readonly key: keyof BenchKeys
  /** Operation and bytes of native/build/bench. */
  readonly raw: readonly [op: string, bytes: number]
  readonly targetShare: number
  input(keyId: string, ask: Ask): Promise<object>
}

const base64 = (bytes: number) => randomBytes(bytes).toString('base64')

export const operations: readonly BenchOperation[] = [
  {
    name: 'Sign RSA-2048',
    target: 'Sign',
    key: 'rsa',
    raw: ['rsa2048', 51],
    targetShare: 0.85,
    input: async (KeyId) => sign(KeyId, 'RSASSA_PKCS1_V1_5_SHA_256'),
  },
  {
    name: 'Sign P-256',
    target: 'Sign',
    key: 'p256',
    raw: ['p256-sign', 32],
    targetShare: 0.7,
    input: async (KeyId) => sign(KeyId, 'ECDSA_SHA_256'),
  },
  {
    name: 'Encrypt 32 B',
    target: 'Encrypt',
    key: 'aes',
    raw: ['gcm-encrypt', 32],
    targetShare: 0.7,
    input: async (KeyId) => ({ KeyId, Plaintext: base64(32) }),
  },
  {
    name: 'Encrypt 4 KB',
    target: 'Encrypt',
    key: 'aes',
    raw: ['gcm-encrypt', 4096],
    targetShare: 0.7,
    input: async (KeyId) => ({ KeyId, Plaintext: base64(4096) }),
  },
  {
    name: 'Decrypt 32 B',
    target: 'Decrypt',
    key: 'aes',
    raw: ['gcm-decrypt', 32],
    targetShare: 0.7,
    async input(KeyId, ask) {
      const { CiphertextBlob } = await ask('Encrypt', { KeyId, Plaintext: base64(32) })
      return { CiphertextBlob }
    },
  },
  {
    name: 'GenerateDataKey',
    target: 'GenerateDataKey',
    key: 'aes',
    raw: ['data-key', 32],
    targetShare: 0.7,
    input: async (KeyId) => ({ KeyId, KeySpec: 'AES_256' }),
  },
  {
    name: 'GenerateMac',
    target: 'GenerateMac',
    key: 'hmac',
    raw: ['hmac', 32],
    targetShare: 0.7,
    input: async (KeyId) => ({ KeyId, Message: base64(32), MacAlgorithm: 'HMAC_SHA_256' }),
  },
]

function sign(KeyId: string, SigningAlgorithm: string) {
  return { KeyId, Message: base64(32), MessageType: 'DIGEST', SigningAlgorithm }
}

export async function createBenchKeys(ask: Ask): Promise<BenchKeys> {
  return {
    rsa: await createKey(ask, 'RSA_2048', 'SIGN_VERIFY'),
    p256: await createKey(ask, 'ECC_NIST_P256', 'SIGN_VERIFY'),
    aes: await createKey(ask, 'SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT'),
    hmac: await createKey(ask, 'HMAC_256', 'GENERATE_VERIFY_MAC'),
  }
}

export async function createKey(ask: Ask, KeySpec: string, KeyUsage: string): Promise<string> {
  const { KeyMetadata } = await ask('CreateKey', { KeySpec, KeyUsage })
  return (KeyMetadata as unknown as { KeyId: string }).KeyId
}
