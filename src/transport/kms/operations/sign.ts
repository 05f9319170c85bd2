import { blob, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { dryRun, grantTokens, keyId, messageType, signingAlgorithm } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  // Empty messages are legal since 2025; the key service judges what a digest must be.
  Message: blob({ max: 4096, sensitive: true }).required(),
  MessageType: messageType.default('RAW'),
  GrantTokens: grantTokens,
  SigningAlgorithm: signingAlgorithm.required(),
  DryRun: dryRun,
})

export function sign({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'Sign',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: (request) => ({
      namesAlias: true,
      algorithm: ['kms:signingalgorithm', request.SigningAlgorithm],
      more: [['kms:messagetype', request.MessageType]],
    }),
    async perform(request, { entry, arn }, scope) {
      const { signature } = await keys.sign(
        entry,
        {
          algorithm: request.SigningAlgorithm,
          message: request.Message,
          messageType: request.MessageType,
          dryRun: request.DryRun === true,
        },
        scope.deadline,
      )
      return { members: { KeyId: arn, Signature: signature, SigningAlgorithm: request.SigningAlgorithm } }
    },
  })
}
