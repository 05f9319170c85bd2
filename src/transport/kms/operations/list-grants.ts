import { invalid } from '../kms-error.ts'
import { decodeMarker, pageEnd } from '../pagination.ts'
import { type Infer, structure } from '../schema.ts'
import {
  checkGrantId,
  grantId,
  grantLimit,
  parsePrincipal,
  principal,
  renderGrant,
  servicePrincipal,
} from './grant-members.ts'
import { defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, marker } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  GrantId: grantId,
  GranteePrincipal: principal,
  GranteeServicePrincipal: servicePrincipal,
  Limit: grantLimit,
  Marker: marker,
})

function check({ GrantId, GranteePrincipal, GranteeServicePrincipal }: Infer<typeof input>): void {
  if (GranteePrincipal !== undefined && GranteeServicePrincipal !== undefined) {
    throw invalid('You can specify either GranteePrincipal or GranteeServicePrincipal, but not both.')
  }
  if (GrantId !== undefined) checkGrantId(GrantId)
}

export function listGrants({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'ListGrants',
    readOnly: true,
    input,
    check,
    isCrossAccount: true,
    find: findByBareKeyId(keys),
    conditions: () => ({ more: [['kms:grantisforawsresource', 'false']] }),
    async perform(request, { entry }, scope) {
      const { GrantId: id, GranteePrincipal: grantee, GranteeServicePrincipal: service } = request
      const filter = {
        ...(grantee === undefined ? {} : { granteePrincipal: parsePrincipal(grantee, scope.partition) }),
        ...(service === undefined ? {} : { granteeServicePrincipal: service }),
      }
      const list = `ListGrants/${JSON.stringify([entry.key.keyId, id ?? null, filter])}`
      const after = decodeMarker(list, request.Marker)
      const { grants, more } = await keys.listGrants(
        entry,
        { ...filter, ...(id === undefined ? {} : { grantId: id }) },
        after,
        request.Limit,
      )
      return {
        members: {
          Grants: grants.map((grant) => renderGrant(grant, scope.partition)),
          ...pageEnd(list, grants.at(-1)?.grantId, more),
        },
      }
    },
  })
}
