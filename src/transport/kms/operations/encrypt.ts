import { blob, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts, materialData } from './key-operation.ts'
import { dryRun, encryptionAlgorithm, encryptionContext, grantTokens, keyId } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  Plaintext: blob({ min: 1, max: 4096, sensitive: true }).required(),
  EncryptionContext: encryptionContext,
  GrantTokens: grantTokens,
  EncryptionAlgorithm: encryptionAlgorithm.default('SYMMETRIC_DEFAULT'),
  DryRun: dryRun,
})

export function encrypt({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'Encrypt',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: (request) => ({
      namesAlias: true,
      algorithm: ['kms:encryptionalgorithm', request.EncryptionAlgorithm],
      encryptionContext: request.EncryptionContext,
    }),
    async perform(request, { entry, arn }, scope) {
      const { ciphertext, materialId } = await keys.encrypt(
        entry,
        {
          algorithm: request.EncryptionAlgorithm,
          plaintext: request.Plaintext,
          context: request.EncryptionContext ?? {},
          operation: 'Encrypt',
          dryRun: request.DryRun === true,
          requester: scope,
        },
        scope.deadline,
      )
      return {
        members: { CiphertextBlob: ciphertext, KeyId: arn, EncryptionAlgorithm: request.EncryptionAlgorithm },
        ...materialData(materialId, keys.storeOf(entry)),
      }
    },
  })
}
