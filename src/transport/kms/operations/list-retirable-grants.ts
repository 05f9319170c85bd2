import type { Operation } from '../../../pipeline.ts'
import { demandWithoutKey } from '../conditions.ts'
import { invalid } from '../kms-error.ts'
import { decodeMarker, pageEnd } from '../pagination.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, structure } from '../schema.ts'
import { grantLimit, parsePrincipal, principal, renderGrant, servicePrincipal } from './grant-members.ts'
import { type KmsOutput, type KmsParts, useTimeoutMs } from './key-operation.ts'
import { marker } from './members.ts'

const input = structure({
  RetiringPrincipal: principal,
  RetiringServicePrincipal: servicePrincipal,
  Limit: grantLimit,
  Marker: marker,
})

interface Resources {
  readonly retiring: string
}

/** All keys of a Region, also those of other accounts: what is authorized is the look at a principal of one's own account. */
export function listRetirableGrants({ keys }: KmsParts): Operation<Infer<typeof input>, Resources, KmsOutput> {
  return {
    name: 'ListRetirableGrants',
    readOnly: true,
    timeoutMs: useTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      if ((request.RetiringPrincipal === undefined) === (request.RetiringServicePrincipal === undefined)) {
        throw invalid('You must specify either RetiringPrincipal or RetiringServicePrincipal, but not both.')
      }
      return request
    },
    async prepare({ RetiringPrincipal: name, RetiringServicePrincipal: service }, scope) {
      const retiring = name === undefined ? (service as string) : parsePrincipal(name, scope.partition)
      const owner = name === undefined ? scope.account : (retiring.split(':')[4] as string)
      const resource = name === undefined ? {} : { resource: retiring }
      const demand = demandWithoutKey('kms:ListRetirableGrants', scope, { ...resource, hasCallerAccount: false })
      return { resources: { retiring }, demands: [{ ...demand, resourceAccount: owner }] }
    },
    async perform(request, { retiring }, scope) {
      const list = `ListRetirableGrants/${retiring}`
      const [account, keyId, grantId] = decodeMarker(list, request.Marker)?.split('/') ?? []
      const after =
        account === undefined || keyId === undefined || grantId === undefined ? undefined : { account, keyId, grantId }
      const { grants, more } = await keys.listRetirableGrants(scope, retiring, after, request.Limit)
      const last = grants.at(-1)
      return {
        members: {
          Grants: grants.map((grant) => renderGrant(grant, scope.partition)),
          ...pageEnd(list, last && `${last.account}/${last.keyId}/${last.grantId}`, more),
        },
      }
    },
    record: (request) => ({ requestParameters: recordInput(input, request), responseElements: null, resources: [] }),
  }
}
