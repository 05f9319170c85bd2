/** GenerateDataKeyPair and GenerateDataKeyPairWithoutPlaintext: one meaning, with and without the private key in the answer. */
import { type Schema, structure } from '../schema.ts'
import {
  changeTimeoutMs,
  defineKeyOperation,
  findByKeyId,
  type KmsParts,
  materialData,
  refuseRecipient,
} from './key-operation.ts'
import { dataKeyPairSpec, dryRun, encryptionContext, grantTokens, keyId, recipient } from './members.ts'

const shared = {
  KeyId: keyId.required(),
  KeyPairSpec: dataKeyPairSpec.required(),
  EncryptionContext: encryptionContext,
  GrantTokens: grantTokens,
  DryRun: dryRun,
} as const

interface DataKeyPairInput {
  readonly KeyId: string
  readonly KeyPairSpec: string
  readonly EncryptionContext?: Readonly<Record<string, string>>
  readonly GrantTokens?: readonly string[]
  readonly DryRun?: boolean
  readonly Recipient?: unknown
}

const withPlaintext = structure({ ...shared, Recipient: recipient }) as Schema<DataKeyPairInput>
const withoutPlaintext = structure(shared) as Schema<DataKeyPairInput>

function define(
  { keys }: KmsParts,
  name: 'GenerateDataKeyPair' | 'GenerateDataKeyPairWithoutPlaintext',
  input: Schema<DataKeyPairInput>,
) {
  return defineKeyOperation<DataKeyPairInput>({
    name,
    readOnly: true,
    // A large RSA pair takes seconds.
    timeoutMs: changeTimeoutMs,
    input,
    check: (request) => refuseRecipient(request.Recipient),
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: (request) => ({
      namesAlias: true,
      algorithm: ['kms:encryptionalgorithm', 'SYMMETRIC_DEFAULT'],
      encryptionContext: request.EncryptionContext,
      more: [['kms:datakeypairspec', request.KeyPairSpec]],
    }),
    async perform(request, { entry, arn }, scope) {
      const pair = await keys.generateDataKeyPair(
        entry,
        {
          pairSpec: request.KeyPairSpec,
          context: request.EncryptionContext ?? {},
          operation: name,
          dryRun: request.DryRun === true,
        },
        scope.deadline,
      )
      const members = {
        PrivateKeyCiphertextBlob: pair.ciphertext,
        PublicKey: pair.publicKey,
        KeyId: arn,
        KeyPairSpec: request.KeyPairSpec,
        KeyMaterialId: pair.materialId,
      }
      if (name === 'GenerateDataKeyPair') {
        return { members: { ...members, PrivateKeyPlaintext: pair.privateKey }, ...materialData(pair.materialId) }
      }
      pair.privateKey.fill(0)
      return { members, ...materialData(pair.materialId) }
    },
  })
}

export function generateDataKeyPair(parts: KmsParts) {
  return define(parts, 'GenerateDataKeyPair', withPlaintext)
}

export function generateDataKeyPairWithoutPlaintext(parts: KmsParts) {
  return define(parts, 'GenerateDataKeyPairWithoutPlaintext', withoutPlaintext)
}
