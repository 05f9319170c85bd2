/**
 * What authorization wants to know about grants: those of the demanded key, synchronously once they are warm. The two operations on
 * grants themselves see less: RetireGrant only the grant it names, CreateGrant only those that give as much as the new one.
 */
import { type Grant, permitsChild } from './authorize/authorize.ts'
import type { Demand } from './call.ts'
import type { Catalog, KeyName } from './catalog/catalog.ts'

const none: readonly Grant[] = Object.freeze([])
const keyArn = /^arn:[^:]*:kms:([^:]+):(\d{12}):key\/([^/]+)$/

export function createGrantFinder(
  catalog: Pick<Catalog, 'peekGrants' | 'findGrants'>,
): (demand: Demand) => readonly Grant[] | Promise<readonly Grant[]> {
  return (demand) => {
    const [, region, account, keyId] = keyArn.exec(demand.resource) ?? []
    if (region === undefined || account === undefined || keyId === undefined) return none
    const name: KeyName = { account, region, keyId }
    const warm = catalog.peekGrants(name)
    if (warm === undefined) return catalog.findGrants(name).then((grants) => choose(grants, demand))
    return choose(warm, demand)
  }
}

function choose(grants: readonly Grant[], { action, grantId, offer }: Demand): readonly Grant[] {
  if (grants.length === 0) return none
  if (action === 'kms:RetireGrant') return grants.filter((grant) => grant.grantId === grantId)
  if (action !== 'kms:CreateGrant') return grants
  const parents = grants.filter(({ operations }) => operations.includes('CreateGrant'))
  return offer === undefined ? parents : parents.filter((parent) => permitsChild(parent, offer))
}
