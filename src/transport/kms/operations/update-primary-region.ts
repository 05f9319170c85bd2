import type { KeyEntry } from '../../../catalog/catalog.ts'
import type { ResolvedKey } from '../../../keys/keys.ts'
import type { Operation } from '../../../pipeline.ts'
import { demandOnKey } from '../conditions.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, structure } from '../schema.ts'
import {
  changeTimeoutMs,
  findKey,
  type KmsOutput,
  type KmsParts,
  localOnly,
  recordKey,
  requirePresent,
} from './key-operation.ts'
import { keyId, regionName } from './members.ts'
import { requireServedRegion } from './served-region.ts'

const input = structure({ KeyId: keyId.required(), PrimaryRegion: regionName.required() })

type UpdatePrimaryRegionInput = Infer<typeof input>

/** Needs its permission on both keys: the one that is the primary now, and the replica that becomes it. */
export function updatePrimaryRegion(parts: KmsParts): Operation<UpdatePrimaryRegionInput, ResolvedKey, KmsOutput> {
  const { keys } = parts

  const findReplica = async (entry: KeyEntry | undefined, region: string) =>
    entry === undefined || entry.key.region === region
      ? undefined
      : (await keys.relatedKeys(entry)).find(({ key }) => key.region === region)

  return {
    name: 'UpdatePrimaryRegion',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    parse: (raw) => readInput(input, raw),
    async prepare(request, scope) {
      const { PrimaryRegion: region } = request
      const key = localOnly(await findKey(keys, request.KeyId, 'key', scope), scope)
      const more = [['kms:primaryregion', region]] as const
      const demand = demandOnKey('kms:UpdatePrimaryRegion', key, scope, { more })
      const entry = await findReplica(key.entry, region)
      if (entry === undefined) return { resources: key, demands: [demand] }
      const replica = { arn: keys.keyArn(entry.key), account: entry.key.account, entry }
      const there = { ...scope, region }
      return { resources: key, demands: [demand, demandOnKey('kms:UpdatePrimaryRegion', replica, there, { more })] }
    },
    async perform(request, key) {
      requireServedRegion(parts, request.PrimaryRegion)
      await keys.updatePrimaryRegion(requirePresent(key).entry, request.PrimaryRegion)
      return { members: null }
    },
    record(request, key, output) {
      return {
        requestParameters: recordInput(input, request),
        responseElements: output === undefined || key === undefined ? null : { keyId: key.arn },
        resources: key === undefined ? [] : [recordKey(key)],
      }
    },
  }
}
