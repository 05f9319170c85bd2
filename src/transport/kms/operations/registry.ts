/** Every operation of the KMS door by the name that X-Amz-Target gives: adding one is one file and one row. */
import { createKey } from './create-key.ts'
import { decrypt } from './decrypt.ts'
import { describeKey } from './describe-key.ts'
import { encrypt } from './encrypt.ts'
import type { KmsOperation, KmsParts } from './key-operation.ts'

const registry = {
  CreateKey: createKey,
  Decrypt: decrypt,
  DescribeKey: describeKey,
  Encrypt: encrypt,
} satisfies Readonly<Record<string, (parts: KmsParts) => KmsOperation>>

export function createOperations(parts: KmsParts): ReadonlyMap<string, KmsOperation> {
  return new Map(Object.entries(registry).map(([name, create]) => [name, create(parts) as KmsOperation]))
}
