import { blob, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { dryRun, grantTokens, keyId, macAlgorithm } from './members.ts'

const input = structure({
  Message: blob({ min: 1, max: 4096, sensitive: true }).required(),
  KeyId: keyId.required(),
  MacAlgorithm: macAlgorithm.required(),
  GrantTokens: grantTokens,
  DryRun: dryRun,
})

export function generateMac({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'GenerateMac',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: (request) => ({ namesAlias: true, algorithm: ['kms:macalgorithm', request.MacAlgorithm] }),
    async perform(request, { entry, arn }, scope) {
      const { Message: message, MacAlgorithm: algorithm } = request
      const dryRun = request.DryRun === true
      const mac = await keys.mac(entry, { algorithm, message, operation: 'GenerateMac', dryRun }, scope.deadline)
      return { members: { Mac: mac, MacAlgorithm: algorithm, KeyId: arn } }
    },
  })
}
