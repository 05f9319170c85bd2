import { defaultKeyPolicy } from '../../../authorize/authorize.ts'
import type { Demand } from '../../../call.ts'
import type { KeyEntry } from '../../../catalog/catalog.ts'
import type { ResolvedKey } from '../../../keys/keys.ts'
import type { Operation, Scope } from '../../../pipeline.ts'
import { demandOnKey, demandWithoutKey, requestTags, specContext } from '../conditions.ts'
import { recordOutput, renderKeyMetadata } from '../metadata.ts'
import { readInput, recordInput } from '../request-body.ts'
import { boolean, type Infer, list, structure } from '../schema.ts'
import {
  changeTimeoutMs,
  findKey,
  type KmsOutput,
  type KmsParts,
  localOnly,
  recordKey,
  requirePresent,
} from './key-operation.ts'
import { checkKeyPolicy, checkLockout } from './key-policy.ts'
import { description, keyId, policyDocument, regionName, tag } from './members.ts'
import { requireServedRegion } from './served-region.ts'
import { parseTags } from './tags.ts'

const input = structure({
  KeyId: keyId.required(),
  ReplicaRegion: regionName.required(),
  Policy: policyDocument,
  BypassPolicyLockoutSafetyCheck: boolean().default(false),
  Description: description.default(''),
  Tags: list(tag),
})

type ReplicateKeyInput = Infer<typeof input>

interface Resources {
  readonly key: ResolvedKey
  /** Permission to make the replica, in its Region. */
  readonly createDemand: Demand
}

export function replicateKey(parts: KmsParts): Operation<ReplicateKeyInput, Resources, KmsOutput> {
  const { keys } = parts
  return {
    name: 'ReplicateKey',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      parseTags(request.Tags)
      return request
    },
    async prepare(request, scope) {
      const key = localOnly(await findKey(keys, request.KeyId, 'key', scope), scope)
      const demands = demandsOf(parts, request, key, scope)
      return { resources: { key, createDemand: demands[1] }, demands }
    },
    async perform(request, resources, scope) {
      const { entry } = requirePresent(resources.key)
      const { ReplicaRegion: region, Description: text } = request
      requireServedRegion(parts, region)
      const policy = await choosePolicy(parts, request, resources, scope)
      const tags = parseTags(request.Tags)
      const replica = await keys.replicate(entry, { region, description: text, policy, tags })
      return {
        members: {
          ReplicaKeyMetadata: renderKeyMetadata(replica, keys),
          ReplicaPolicy: policy,
          ReplicaTags: request.Tags ?? [],
        },
      }
    },
    record(request, resources, output) {
      return {
        requestParameters: recordInput(input, request),
        responseElements: output?.members == null ? null : recordOutput(output.members),
        resources: resources === undefined ? [] : [recordKey(resources.key)],
      }
    },
  }
}

/** kms:ReplicateKey on the primary key, kms:CreateKey in the Region of the replica, kms:TagResource there for tags. */
function demandsOf(
  { keys }: KmsParts,
  request: ReplicateKeyInput,
  key: ResolvedKey,
  scope: Scope,
): readonly [Demand, Demand, ...Demand[]] {
  const { ReplicaRegion: region } = request
  const bypass = ['kms:bypasspolicylockoutsafetycheck', String(request.BypassPolicyLockoutSafetyCheck)] as const
  const tags = requestTags(parseTags(request.Tags))
  const there = [['aws:requestedregion', region], ...replicaContext(key.entry), ...tags] as const
  const replicate = demandOnKey('kms:ReplicateKey', key, scope, { more: [['kms:replicaregion', region], bypass] })
  const create = demandWithoutKey('kms:CreateKey', scope, { hasCallerAccount: true, more: [...there, bypass] })
  if (tags.length === 0) return [replicate, create]
  const resource = key.entry === undefined ? key.arn : keys.keyArn({ ...key.entry.key, region })
  return [
    replicate,
    create,
    demandWithoutKey('kms:TagResource', scope, { resource, hasCallerAccount: true, more: there }),
  ]
}

function replicaContext(entry: KeyEntry | undefined): readonly (readonly [string, string])[] {
  return entry === undefined ? [] : specContext({ ...entry.key, multiRegion: true, multiRegionKeyType: 'REPLICA' })
}

async function choosePolicy(
  parts: KmsParts,
  { ReplicaRegion: region, Policy: policy, BypassPolicyLockoutSafetyCheck: bypass }: ReplicateKeyInput,
  { key, createDemand }: Resources,
  scope: Scope,
): Promise<string> {
  if (policy === undefined) return defaultKeyPolicy(scope.account, scope.partition)
  await checkKeyPolicy(parts, policy, scope)
  if (!bypass) {
    const resource = parts.keys.keyArn({ ...requirePresent(key).entry.key, region })
    await checkLockout(parts, policy, { ...createDemand, resource }, scope)
  }
  return policy
}
