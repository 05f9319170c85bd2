/** Puts the request quota in front of an operation: which class of rates a call belongs to, by its name and the kind of its key. */
import type { KeySpec } from '../../../hsm/port.ts'
import type { Prepared } from '../../../pipeline.ts'
import { anyCryptographic, type RequestQuotas } from '../request-quotas.ts'
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
      const take = (className: string): void => quotas.take(scope.account, scope.region, className)
      if (!cryptographic.has(name)) {
        take(name.startsWith('GenerateDataKeyPair') ? pairClassOf(input) : own)
        return operation.prepare(input, scope)
      }
      // The kind of key decides the class; its account pays nothing, the caller's does. A key that is not found is one of the many.
      take(anyCryptographic)
      let prepared: Prepared<unknown> | undefined
      try {
        prepared = await operation.prepare(input, scope)
      } finally {
        take(classOf(prepared?.resources))
      }
      return prepared
    },
  }
}

function pairClassOf(input: unknown): string {
  const { KeyPairSpec: spec } = input as { readonly KeyPairSpec?: string }
  return `data-key-pair-${String(spec).toLowerCase().replaceAll('_', '-')}`
}

function classOf(resources: unknown): string {
  const spec = (resources as { entry?: { key: { spec: KeySpec } } } | null)?.entry?.key.spec
  if (spec?.startsWith('RSA_')) return 'crypto-rsa'
  if (spec?.startsWith('ML_DSA_')) return 'crypto-ml-dsa'
  if (spec?.startsWith('ML_KEM_')) return 'crypto-ml-kem'
  return spec?.startsWith('ECC_') ? 'crypto-ecc' : 'crypto-symmetric'
}

function kebab(name: string): string {
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase()
}
