/** Puts the request quota in front of an operation: which class of rates a call belongs to, by its name and the kind of its key. */
import type { KeySpec } from '../../../hsm/port.ts'
import type { RequestQuotas } from '../request-quotas.ts'
import type { KmsOperation } from './key-operation.ts'

/** Operations that share the rate of cryptographic operations for the kind of key they use. */
const cryptographic = new Set([
  'Decapsulate',
  'Decrypt',
  'DeriveSharedSecret',
  'Encapsulate',
  'Encrypt',
  'GenerateDataKey',
  'GenerateDataKeyWithoutPlaintext',
  'GenerateMac',
  'GenerateRandom',
  'ReEncrypt',
  'Sign',
  'Verify',
  'VerifyMac',
])

/** The operation with its rate asked first. */
export function withRequestQuota(operation: KmsOperation, quotas: RequestQuotas): KmsOperation {
  const { name } = operation
  const own = kebab(name)
  return {
    ...operation,
    async prepare(input, scope) {
      // The kind of key decides the class, so the key is looked up first; its account pays nothing, the caller's does.
      const prepared = await operation.prepare(input, scope)
      quotas.take(scope.account, scope.region, classOf(name, own, input, prepared.resources))
      return prepared
    },
  }
}

function classOf(name: string, own: string, input: unknown, resources: unknown): string {
  if (name.startsWith('GenerateDataKeyPair')) {
    return `data-key-pair-${String((input as { KeyPairSpec?: string }).KeyPairSpec)
      .toLowerCase()
      .replaceAll('_', '-')}`
  }
  if (!cryptographic.has(name)) return own
  const spec = (resources as { entry?: { key: { spec: KeySpec } } } | null)?.entry?.key.spec
  if (spec?.startsWith('RSA_')) return 'crypto-rsa'
  if (spec?.startsWith('ML_DSA_')) return 'crypto-ml-dsa'
  if (spec?.startsWith('ML_KEM_')) return 'crypto-ml-kem'
  return spec?.startsWith('ECC_') ? 'crypto-ecc' : 'crypto-symmetric'
}

function kebab(name: string): string {
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase()
}
