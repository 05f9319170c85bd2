import { blob, enumeration, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts, refuseRecipient } from './key-operation.ts'
import { dryRun, grantTokens, keyId, recipient } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  KeyAgreementAlgorithm: enumeration(['ECDH']).required(),
  PublicKey: blob({ min: 1, max: 8192 }).required(),
  GrantTokens: grantTokens,
  DryRun: dryRun,
  Recipient: recipient,
})

export function deriveSharedSecret({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'DeriveSharedSecret',
    readOnly: true,
    input,
    check: (request) => refuseRecipient(request.Recipient),
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: (request) => ({
      namesAlias: true,
      algorithm: ['kms:keyagreementalgorithm', request.KeyAgreementAlgorithm],
    }),
    async perform(request, { entry, arn }, scope) {
      const secret = await keys.deriveSharedSecret(
        entry,
        {
          algorithm: request.KeyAgreementAlgorithm,
          peerPublicKey: request.PublicKey,
          dryRun: request.DryRun === true,
        },
        scope.deadline,
      )
      return {
        members: {
          KeyId: arn,
          SharedSecret: secret,
          KeyAgreementAlgorithm: request.KeyAgreementAlgorithm,
          KeyOrigin: entry.key.origin,
        },
      }
    },
  })
}
