import { epochSeconds } from '../metadata.ts'
import { enumeration, structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  WrappingAlgorithm: enumeration([
    'RSAES_PKCS1_V1_5',
    'RSAES_OAEP_SHA_1',
    'RSAES_OAEP_SHA_256',
    'RSA_AES_KEY_WRAP_SHA_1',
    'RSA_AES_KEY_WRAP_SHA_256',
    'SM2PKE',
  ]).required(),
  WrappingKeySpec: enumeration(['RSA_2048', 'RSA_3072', 'RSA_4096', 'SM2']).required(),
})

export function getParametersForImport({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'GetParametersForImport',
    readOnly: true,
    // A pair of RSA_4096 takes seconds.
    timeoutMs: changeTimeoutMs,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    conditions: (request) => ({
      more: [
        ['kms:wrappingalgorithm', request.WrappingAlgorithm],
        ['kms:wrappingkeyspec', request.WrappingKeySpec],
      ],
    }),
    async perform(request, { entry, arn }, scope) {
      const { WrappingAlgorithm: algorithm, WrappingKeySpec: wrappingSpec } = request
      const parameters = await keys.importParameters(entry, { algorithm, wrappingSpec }, scope.deadline)
      return {
        members: {
          KeyId: arn,
          ImportToken: parameters.token,
          PublicKey: parameters.publicKey,
          ParametersValidTo: epochSeconds(parameters.validTo),
        },
      }
    },
  })
}
