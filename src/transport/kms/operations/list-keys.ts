import type { Operation } from '../../../pipeline.ts'
import { demandWithoutKey } from '../conditions.ts'
import { decodeMarker, pageEnd } from '../pagination.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, integer, structure } from '../schema.ts'
import { type KmsOutput, type KmsParts, useTimeoutMs } from './key-operation.ts'
import { marker } from './members.ts'

const input = structure({ Limit: integer({ min: 1, max: 1000 }).default(100), Marker: marker })

export function listKeys({ keys }: KmsParts): Operation<Infer<typeof input>, null, KmsOutput> {
  return {
    name: 'ListKeys',
    readOnly: true,
    timeoutMs: useTimeoutMs,
    parse: (raw) => readInput(input, raw),
    async prepare(_request, scope) {
      return { resources: null, demands: [demandWithoutKey('kms:ListKeys', scope, { hasCallerAccount: false })] }
    },
    async perform(request, _resources, scope) {
      const after = decodeMarker('ListKeys', request.Marker)
      const { keyIds, more } = await keys.list(scope, after, request.Limit)
      const { account, region } = scope
      return {
        members: {
          Keys: keyIds.map((keyId) => ({ KeyId: keyId, KeyArn: keys.keyArn({ account, region, keyId }) })),
          ...pageEnd('ListKeys', keyIds.at(-1), more),
        },
      }
    },
    record: (request) => ({ requestParameters: recordInput(input, request), responseElements: null, resources: [] }),
  }
}
