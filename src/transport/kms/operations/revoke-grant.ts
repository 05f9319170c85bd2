import { GatewayError } from '../../../error.ts'
import { structure } from '../schema.ts'
import { checkGrantId, grantId, grantNotFound } from './grant-members.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { dryRun, keyId } from './members.ts'

const input = structure({ KeyId: keyId.required(), GrantId: grantId.required(), DryRun: dryRun })

export function revokeGrant({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'RevokeGrant',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    check: ({ GrantId }) => checkGrantId(GrantId),
    isCrossAccount: true,
    find: findByBareKeyId(keys),
    conditions: () => ({ more: [['kms:grantisforawsresource', 'false']] }),
    async perform(request, { entry }) {
      const grant = await keys.findGrant(entry.key, request.GrantId)
      if (grant === undefined) throw grantNotFound(request.GrantId)
      if (request.DryRun === true) throw new GatewayError('DryRun')
      if (!(await keys.deleteGrant(grant))) throw grantNotFound(request.GrantId)
      return { members: null }
    },
    respond: (_output, { arn }) => ({ keyId: arn }),
  })
}
