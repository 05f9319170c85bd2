import { GatewayError } from '../../../error.ts'
import type { Operation } from '../../../pipeline.ts'
import { demandWithoutKey } from '../conditions.ts'
import { epochSeconds } from '../metadata.ts'
import { decodeMarker, pageEnd } from '../pagination.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, integer, structure } from '../schema.ts'
import { findKey, type KmsOutput, type KmsParts, useTimeoutMs } from './key-operation.ts'
import { keyId, marker } from './members.ts'

const input = structure({ KeyId: keyId, Limit: integer({ min: 1, max: 100 }).default(50), Marker: marker })

interface Resources {
  /** The key whose aliases are wanted; undefined for all. */
  readonly keyId: string | undefined
}

export function listAliases({ keys }: KmsParts): Operation<Infer<typeof input>, Resources, KmsOutput> {
  return {
    name: 'ListAliases',
    readOnly: true,
    timeoutMs: useTimeoutMs,
    parse: (raw) => readInput(input, raw),
    async prepare(request, scope) {
      const demands = [demandWithoutKey('kms:ListAliases', scope, { hasCallerAccount: false })]
      if (request.KeyId === undefined) return { resources: { keyId: undefined }, demands }
      const key = await findKey(keys, request.KeyId, 'key', scope)
      if (key.account !== scope.account || key.entry === undefined) {
        // Another account's aliases are never listed: its keys, existing or not, look alike.
        throw new GatewayError('KeyNotFound', { text: `Key '${key.arn}' does not exist` })
      }
      return { resources: { keyId: key.entry.key.keyId }, demands }
    },
    async perform(request, { keyId: wanted }, scope) {
      const list = `ListAliases/${wanted ?? ''}`
      const after = decodeMarker(list, request.Marker)
      const { aliases, more } = await keys.listAliases(scope, wanted, after, request.Limit)
      return {
        members: {
          Aliases: aliases.map((alias) => ({
            AliasName: alias.name,
            AliasArn: keys.aliasArn(alias),
            TargetKeyId: alias.keyId,
            CreationDate: epochSeconds(alias.createdAt),
            LastUpdatedDate: epochSeconds(alias.updatedAt),
          })),
          ...pageEnd(list, aliases.at(-1)?.name, more),
        },
      }
    },
    record: (request) => ({ requestParameters: recordInput(input, request), responseElements: null, resources: [] }),
  }
}
