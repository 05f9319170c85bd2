import { blob, structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { dryRun, encapsulationAlgorithm, grantTokens, keyId } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  SharedSecretCiphertextBlob: blob({ min: 1, max: 6144 }).required(),
  EncapsulationAlgorithm: encapsulationAlgorithm.required(),
  GrantTokens: grantTokens,
  DryRun: dryRun,
})

/** A ciphertext of the right length always opens: what was changed or made for another key gives other bytes (FIPS 203 section 6.3). */
export function decapsulate({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'Decapsulate',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: () => ({ namesAlias: true }),
    async perform(request, { entry, arn }, scope) {
      const { EncapsulationAlgorithm: algorithm, SharedSecretCiphertextBlob: ciphertext } = request
      const secret = await keys.decapsulate(
        entry,
        { algorithm, ciphertext, dryRun: request.DryRun === true },
        scope.deadline,
      )
      return { members: { KeyId: arn, SharedSecret: secret, EncapsulationAlgorithm: algorithm } }
    },
  })
}
