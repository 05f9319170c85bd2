import { structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { dryRun, encapsulationAlgorithm, grantTokens, keyId } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  EncapsulationAlgorithm: encapsulationAlgorithm.required(),
  GrantTokens: grantTokens,
  DryRun: dryRun,
})

export function encapsulate({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'Encapsulate',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    // no condition key names the algorithm (Service Authorization Reference, "AWS Key Management Service")
    conditions: () => ({ namesAlias: true }),
    async perform(request, { entry, arn }) {
      const { EncapsulationAlgorithm: algorithm } = request
      const { secret, ciphertext } = await keys.encapsulate(entry, { algorithm, dryRun: request.DryRun === true })
      return {
        members: {
          KeyId: arn,
          SharedSecret: secret,
          SharedSecretCiphertextBlob: ciphertext,
          EncapsulationAlgorithm: algorithm,
        },
      }
    },
  })
}
