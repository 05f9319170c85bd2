import { GatewayError } from '../../../error.ts'
import { structure } from '../schema.ts'
import { defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, policyName } from './members.ts'

const input = structure({ KeyId: keyId.required(), PolicyName: policyName.default('default') })

/** A key has one policy, and its name is `default`. @throws GatewayError `NotFound` */
export function requireDefaultPolicy(name: string): void {
  if (name !== 'default') throw new GatewayError('NotFound', { text: 'No such policy exists' })
}

export function getKeyPolicy({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'GetKeyPolicy',
    readOnly: true,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(request, { entry }) {
      requireDefaultPolicy(request.PolicyName)
      return { members: { Policy: entry.policy?.document ?? '', PolicyName: request.PolicyName } }
    },
  })
}
