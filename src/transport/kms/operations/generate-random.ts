import type { Operation } from '../../../pipeline.ts'
import { StoreError } from '../../../stores/stores.ts'
import { demandWithoutKey } from '../conditions.ts'
import { invalid } from '../kms-error.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, integer, structure } from '../schema.ts'
import { type KmsOutput, type KmsParts, refuseRecipient, useTimeoutMs } from './key-operation.ts'
import { customKeyStoreId, recipient } from './members.ts'

const input = structure({
  NumberOfBytes: integer({ min: 1, max: 1024 }),
  CustomKeyStoreId: customKeyStoreId,
  Recipient: recipient,
})

export function generateRandom({ keys, stores }: KmsParts): Operation<Infer<typeof input>, null, KmsOutput> {
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
      const { CustomKeyStoreId: storeId, NumberOfBytes: bytes = 0 } = request
      if (storeId !== undefined) {
        if (stores === undefined) throw new StoreError('CustomKeyStoreNotFound')
        const additionalEventData = { customKeyStoreId: storeId }
        return { members: { Plaintext: await stores.random(storeId, bytes, scope) }, additionalEventData }
      }
      return { members: { Plaintext: await keys.random(scope, bytes, scope.deadline) } }
    },
    record: (request, _resources, output) => ({
      requestParameters: recordInput(input, request),
      responseElements: null,
      resources: [],
      ...(output?.additionalEventData === undefined ? {} : { additionalEventData: output.additionalEventData }),
    }),
  }
}
