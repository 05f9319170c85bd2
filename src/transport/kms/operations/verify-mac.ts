import { blob, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { dryRun, grantTokens, keyId, macAlgorithm } from './members.ts'

const input = structure({
  Message: blob({ min: 1, max: 4096, sensitive: true }).required(),
  KeyId: keyId.required(),
  MacAlgorithm: macAlgorithm.required(),
  Mac: blob({ min: 1, max: 6144 }).required(),
  GrantTokens: grantTokens,
  DryRun: dryRun,
})

/** Answers only valid MACs: a wrong one is an exception, never `MacValid: false`. */
export function verifyMac({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'VerifyMac',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: (request) => ({ namesAlias: true, algorithm: ['kms:macalgorithm', request.MacAlgorithm] }),
    async perform(request, { entry, arn }, scope) {
      const { Message: message, MacAlgorithm: algorithm, Mac: mac } = request
      await keys.verifyMac(entry, { algorithm, message, mac, dryRun: request.DryRun === true }, scope.deadline)
      return { members: { KeyId: arn, MacValid: true, MacAlgorithm: algorithm } }
    },
  })
}
