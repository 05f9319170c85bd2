/** GenerateDataKey and GenerateDataKeyWithoutPlaintext: one meaning, with and without the plaintext in the answer. */
import { invalid } from '../kms-error.ts'
import { integer, type Schema, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts, materialData, refuseRecipient } from './key-operation.ts'
import { dataKeySpec, dryRun, encryptionContext, grantTokens, keyId, recipient } from './members.ts'

const shared = {
  KeyId: keyId.required(),
  EncryptionContext: encryptionContext,
  NumberOfBytes: integer({ min: 1, max: 1024 }),
  KeySpec: dataKeySpec,
  GrantTokens: grantTokens,
  DryRun: dryRun,
} as const

interface DataKeyInput {
  readonly KeyId: string
  readonly EncryptionContext?: Readonly<Record<string, string>>
  readonly NumberOfBytes?: number
  readonly KeySpec?: 'AES_256' | 'AES_128'
  readonly GrantTokens?: readonly string[]
  readonly DryRun?: boolean
  readonly Recipient?: unknown
}

const withPlaintext: Schema<DataKeyInput> = structure({ ...shared, Recipient: recipient })
const withoutPlaintext: Schema<DataKeyInput> = structure(shared)

function define(
  { keys }: KmsParts,
  name: 'GenerateDataKey' | 'GenerateDataKeyWithoutPlaintext',
  input: Schema<DataKeyInput>,
) {
  return defineKeyOperation<DataKeyInput>({
    name,
    readOnly: true,
    input,
    check(request) {
      if ((request.NumberOfBytes === undefined) === (request.KeySpec === undefined)) {
        throw invalid('Please specify either number of bytes or key spec.')
      }
      refuseRecipient(request.Recipient)
    },
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: (request) => ({
      namesAlias: true,
      algorithm: ['kms:encryptionalgorithm', 'SYMMETRIC_DEFAULT'],
      encryptionContext: request.EncryptionContext,
    }),
    async perform(request, { entry, arn }, scope) {
      const { plaintext, ciphertext, materialId } = await keys.generateDataKey(
        entry,
        {
          bytes: request.NumberOfBytes ?? (request.KeySpec === 'AES_128' ? 16 : 32),
          context: request.EncryptionContext ?? {},
          operation: name,
          dryRun: request.DryRun === true,
          requester: scope,
        },
        scope.deadline,
      )
      const members = { CiphertextBlob: ciphertext, KeyId: arn, KeyMaterialId: materialId ?? undefined }
      const eventData = materialData(materialId, keys.storeOf(entry))
      if (name === 'GenerateDataKey') return { members: { ...members, Plaintext: plaintext }, ...eventData }
      plaintext.fill(0)
      return { members, ...eventData }
    },
  })
}

export function generateDataKey(parts: KmsParts) {
  return define(parts, 'GenerateDataKey', withPlaintext)
}

export function generateDataKeyWithoutPlaintext(parts: KmsParts) {
  return define(parts, 'GenerateDataKeyWithoutPlaintext', withoutPlaintext)
}
