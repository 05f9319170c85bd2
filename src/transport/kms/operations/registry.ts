/** Every operation of the KMS door by the name that X-Amz-Target gives: adding one is one file and one row. */
import { createKey } from './create-key.ts'
import { decrypt } from './decrypt.ts'
import { describeKey } from './describe-key.ts'
import { encrypt } from './encrypt.ts'
import { generateDataKey, generateDataKeyWithoutPlaintext } from './generate-data-key.ts'
import { generateRandom } from './generate-random.ts'
import { getPublicKey } from './get-public-key.ts'
import type { KmsOperation, KmsParts } from './key-operation.ts'
import { listKeys } from './list-keys.ts'
import { sign } from './sign.ts'
import { verify } from './verify.ts'

const registry = {
  CreateKey: createKey,
  Decrypt: decrypt,
  DescribeKey: describeKey,
  Encrypt: encrypt,
  GenerateDataKey: generateDataKey,
  GenerateDataKeyWithoutPlaintext: generateDataKeyWithoutPlaintext,
  GenerateRandom: generateRandom,
  GetPublicKey: getPublicKey,
  ListKeys: listKeys,
  Sign: sign,
  Verify: verify,
} satisfies Readonly<Record<string, (parts: KmsParts) => KmsOperation>>

export function createOperations(parts: KmsParts): ReadonlyMap<string, KmsOperation> {
  return new Map(Object.entries(registry).map(([name, create]) => [name, create(parts) as KmsOperation]))
}
