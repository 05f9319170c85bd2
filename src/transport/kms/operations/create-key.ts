import { defaultKeyPolicy } from '../../../authorize/authorize.ts'
import type { Demand } from '../../../call.ts'
import { GatewayError } from '../../../error.ts'
import type { KeySpec, KeyUsage } from '../../../hsm/port.ts'
import type { Operation, Scope } from '../../../pipeline.ts'
import { demandWithoutKey, requestTags, specContext } from '../conditions.ts'
import { invalid } from '../kms-error.ts'
import { type KeyMetadata, recordOutput, renderKeyMetadata } from '../metadata.ts'
import { readInput, recordInput } from '../request-body.ts'
import { boolean, enumeration, type Infer, list, string, structure } from '../schema.ts'
import { changeTimeoutMs, type KmsOutput, type KmsParts } from './key-operation.ts'
import { checkKeyPolicy, checkLockout } from './key-policy.ts'
import {
  customerMasterKeySpec,
  customKeyStoreId,
  description,
  keySpec,
  keyUsage,
  policyDocument,
  tag,
} from './members.ts'
import { parseTags } from './tags.ts'

const input = structure({
  Policy: policyDocument,
  Description: description.default(''),
  KeyUsage: keyUsage,
  CustomerMasterKeySpec: customerMasterKeySpec,
  KeySpec: keySpec,
  Origin: enumeration(['AWS_KMS', 'EXTERNAL', 'AWS_CLOUDHSM', 'EXTERNAL_KEY_STORE']).default('AWS_KMS'),
  CustomKeyStoreId: customKeyStoreId,
  BypassPolicyLockoutSafetyCheck: boolean().default(false),
  Tags: list(tag),
  MultiRegion: boolean().default(false),
  XksKeyId: string({ min: 1, max: 128, pattern: /^[a-zA-Z0-9-_.]+$/ }),
})

type CreateKeyInput = Infer<typeof input>

/** What is to be made, once the members agree with one another. */
interface Plan {
  readonly spec: KeySpec
  readonly usage: KeyUsage
  readonly tags: Readonly<Record<string, string>>
}

interface Resources {
  readonly plan: Plan
  readonly keyDemand: Demand
}

/** Usages that a spec allows (AWS KMS Developer Guide, "Key spec reference"). */
function usagesOf(spec: string): readonly KeyUsage[] {
  if (spec.startsWith('RSA_')) return ['ENCRYPT_DECRYPT', 'SIGN_VERIFY']
  if (spec.startsWith('ECC_NIST_P')) return ['SIGN_VERIFY', 'KEY_AGREEMENT']
  if (spec.startsWith('ECC_') || spec.startsWith('ML_DSA_')) return ['SIGN_VERIFY']
  if (spec.startsWith('HMAC_')) return ['GENERATE_VERIFY_MAC']
  if (spec.startsWith('ML_KEM_')) return ['ENCAPSULATE_DECAPSULATE']
  return ['ENCRYPT_DECRYPT']
}

function planKey(request: CreateKeyInput): Plan {
  if (request.KeySpec !== undefined && request.CustomerMasterKeySpec !== undefined) {
    throw invalid(
      'You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.',
    )
  }
  const spec = request.KeySpec ?? request.CustomerMasterKeySpec ?? 'SYMMETRIC_DEFAULT'
  // SM2 is offered in Regions in China only.
  if (spec === 'SM2') throw new GatewayError('Unsupported', {})
  const usage = request.KeyUsage ?? (spec === 'SYMMETRIC_DEFAULT' ? 'ENCRYPT_DECRYPT' : undefined)
  if (usage === undefined) {
    throw invalid('You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.')
  }
  if (!usagesOf(spec).includes(usage)) throw invalid(`KeyUsage ${usage} is not compatible with KeySpec ${spec}`)
  checkOrigin(request)
  return { spec, usage, tags: parseTags(request.Tags) }
}

function checkOrigin({ Origin: origin, CustomKeyStoreId: store, XksKeyId: xksKeyId }: CreateKeyInput): void {
  if (xksKeyId !== undefined && origin !== 'EXTERNAL_KEY_STORE') {
    throw invalid('XksKeyId is only valid for KMS keys with Origin EXTERNAL_KEY_STORE.')
  }
  if (store !== undefined) {
    if (origin === 'AWS_KMS' || origin === 'EXTERNAL') {
      throw invalid(`CustomKeyStoreId is not valid for KMS keys with Origin ${origin}.`)
    }
    if (origin === 'EXTERNAL_KEY_STORE' && xksKeyId === undefined) {
      throw invalid('XksKeyId is required for KMS keys with Origin EXTERNAL_KEY_STORE.')
    }
    return
  }
  if (origin === 'AWS_CLOUDHSM' || origin === 'EXTERNAL_KEY_STORE') {
    throw invalid(`CustomKeyStoreId is required for KMS keys with Origin ${origin}.`)
  }
}

export function createKey(parts: KmsParts): Operation<CreateKeyInput, Resources, KmsOutput> {
  const { keys } = parts
  return {
    name: 'CreateKey',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      planKey(request)
      return request
    },
    async prepare(request, scope) {
      const plan = planKey(request)
      const properties = specContext({ ...plan, origin: request.Origin, multiRegion: request.MultiRegion })
      const tags = requestTags(plan.tags)
      const keyDemand = demandWithoutKey('kms:CreateKey', scope, {
        hasCallerAccount: true,
        more: [
          ...properties,
          ...tags,
          ['kms:bypasspolicylockoutsafetycheck', String(request.BypassPolicyLockoutSafetyCheck)],
        ],
      })
      const tagDemand = demandWithoutKey('kms:TagResource', scope, {
        // The key has no id yet.
        resource: `arn:${scope.partition}:kms:${scope.region}:${scope.account}:key/*`,
        hasCallerAccount: true,
        more: [...properties, ...tags],
      })
      return {
        resources: { plan, keyDemand },
        demands: tags.length === 0 ? [keyDemand] : [keyDemand, tagDemand],
      }
    },
    async perform(request, { plan, keyDemand }, scope) {
      const policy = await choosePolicy(parts, request, keyDemand, scope)
      const entry = await keys.create(
        {
          ...plan,
          purpose: 'kms',
          description: request.Description,
          policy,
          multiRegion: request.MultiRegion,
          origin: request.Origin,
          ...(request.CustomKeyStoreId === undefined
            ? {}
            : { store: { id: request.CustomKeyStoreId, ...xksKeyOf(request), requester: scope } }),
        },
        scope,
        scope.deadline,
      )
      return { members: { KeyMetadata: renderKeyMetadata(entry, keys) } }
    },
    record(request, resources, output) {
      const metadata = output?.members?.KeyMetadata as KeyMetadata | undefined
      const recorded = recordInput(input, request)
      const spec = request.KeySpec ?? request.CustomerMasterKeySpec ?? 'SYMMETRIC_DEFAULT'
      return {
        requestParameters: {
          ...recorded,
          keySpec: spec,
          customerMasterKeySpec: spec,
          ...(resources === undefined ? {} : { keyUsage: resources.plan.usage }),
        },
        responseElements: output?.members == null ? null : recordOutput(output.members),
        resources: metadata === undefined ? [] : [recordCreated(metadata)],
      }
    },
  }
}

function xksKeyOf({ XksKeyId: xksKeyId }: CreateKeyInput): { readonly xksKeyId?: string } {
  return xksKeyId === undefined ? {} : { xksKeyId }
}

function recordCreated(metadata: KeyMetadata): { account: string; type: string; arn: string } {
  return { account: metadata.AWSAccountId as string, type: 'AWS::KMS::Key', arn: metadata.Arn as string }
}

async function choosePolicy(
  parts: KmsParts,
  request: CreateKeyInput,
  keyDemand: Demand,
  scope: Scope,
): Promise<string> {
  const { Policy: policy, BypassPolicyLockoutSafetyCheck: bypass } = request
  if (policy === undefined) return defaultKeyPolicy(scope.account, scope.partition)
  await checkKeyPolicy(parts, policy, scope)
  if (!bypass) {
    const resource = `arn:${scope.partition}:kms:${scope.region}:${scope.account}:key/*`
    await checkLockout(parts, policy, { ...keyDemand, resource }, scope)
  }
  return policy
}
