import { demandOnKey, type OperationConditions } from '../conditions.ts'
import { boolean, type Infer, structure } from '../schema.ts'
import { requireDefaultPolicy } from './get-key-policy.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { checkKeyPolicy, checkLockout } from './key-policy.ts'
import { keyId, policyDocument, policyName } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  PolicyName: policyName.default('default'),
  Policy: policyDocument.required(),
  BypassPolicyLockoutSafetyCheck: boolean().default(false),
})

function conditionsOf(request: Infer<typeof input>): OperationConditions {
  return { more: [['kms:bypasspolicylockoutsafetycheck', String(request.BypassPolicyLockoutSafetyCheck)]] }
}

export function putKeyPolicy(parts: KmsParts) {
  const { keys } = parts
  return defineKeyOperation({
    name: 'PutKeyPolicy',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    conditions: conditionsOf,
    async perform(request, key, scope) {
      requireDefaultPolicy(request.PolicyName)
      await checkKeyPolicy(parts, request.Policy, scope)
      if (!request.BypassPolicyLockoutSafetyCheck) {
        const demand = demandOnKey('kms:PutKeyPolicy', key, scope, conditionsOf(request))
        await checkLockout(parts, request.Policy, demand, scope)
      }
      await keys.setPolicy(key.entry, request.Policy)
      return { members: null }
    },
  })
}
