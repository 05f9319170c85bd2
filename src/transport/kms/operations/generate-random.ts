import type { Operation } from '../../../pipeline.ts'
import { demandWithoutKey } from '../conditions.ts'
import { invalid, KmsError } from '../kms-error.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, integer, structure } from '../schema.ts'
import { type KmsOutput, type KmsParts, refuseRecipient, useTimeoutMs } from './key-operation.ts'
import { customKeyStoreId, recipient } from './members.ts'

const input = structure({
  NumberOfBytes: integer({ min: 1, max: 1024 }),
  CustomKeyStoreId: customKeyStoreId,
  Recipient: recipient,
})

export function generateRandom({ keys }: KmsParts): Operation<Infer<typeof input>, null, KmsOutput> {
  return {
    name: 'GenerateRandom',
    readOnly: true,
    timeoutMs: useTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      if (request.NumberOfBytes === undefined) throw invalid('NumberOfBytes is required.')
      refuseRecipient(request.Recipient)
      return request
    },
    async prepare(_request, scope) {
      return { resources: null, demands: [demandWithoutKey('kms:GenerateRandom', scope, { hasCallerAccount: false })] }
    },
    async perform(request, _resources, scope) {
      if (request.CustomKeyStoreId !== undefined) throw new KmsError('CustomKeyStoreNotFound')
      return { members: { Plaintext: await keys.random(scope, request.NumberOfBytes ?? 0, scope.deadline) } }
    },
    record: (request) => ({ requestParameters: recordInput(input, request), responseElements: null, resources: [] }),
  }
}
