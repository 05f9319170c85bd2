import { blob, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { dryRun, grantTokens, keyId, messageType, signingAlgorithm } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  Message: blob({ max: 4096, sensitive: true }).required(),
  MessageType: messageType.default('RAW'),
  Signature: blob({ min: 1, max: 6144 }).required(),
  SigningAlgorithm: signingAlgorithm.required(),
  GrantTokens: grantTokens,
  DryRun: dryRun,
})

/** Answers only valid signatures: a wrong one is an exception, never `SignatureValid: false`. */
export function verify({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'Verify',
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
      await keys.verify(
        entry,
        {
          algorithm: request.SigningAlgorithm,
          message: request.Message,
          messageType: request.MessageType,
          signature: request.Signature,
          dryRun: request.DryRun === true,
        },
        scope.deadline,
      )
      return { members: { KeyId: arn, SignatureValid: true, SigningAlgorithm: request.SigningAlgorithm } }
    },
  })
}
