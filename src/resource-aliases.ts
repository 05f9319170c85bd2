/**
 * What authorization wants to know about aliases where a policy asks (kms:ResourceAliases): the names of the demanded key, synchronously once
 * they are warm, and forgotten as soon as the catalog tells of any change of aliases.
 */
import type { Demand } from './call.ts'
import type { Catalog } from './catalog/catalog.ts'

const none: readonly string[] = Object.freeze([])
const keyArn = /^arn:[^:]*:kms:([^:]+):(\d{12}):key\/([^/]+)$/
const maxCached = 10_000

/** Answers at most `limit` names. */
export function createAliasFinder(
  catalog: Pick<Catalog, 'listAliases' | 'onChange'>,
  limit: number,
): (demand: Demand) => readonly string[] | Promise<readonly string[]> {
  const cached = new Map<string, readonly string[]>()
  let changes = 0
  catalog.onChange(({ table }) => {
    if (table !== 'alias' && table !== '*') return
    changes++
    cached.clear()
  })

  async function load(arn: string, account: string, region: string, keyId: string): Promise<readonly string[]> {
    const before = changes
    const aliases = await catalog.listAliases(account, region, keyId, undefined, limit)
    const names = Object.freeze(aliases.map(({ name }) => name))
    if (before === changes) {
      if (cached.size >= maxCached) cached.clear()
      cached.set(arn, names)
    }
    return names
  }

  return ({ resource }) => {
    const known = cached.get(resource)
    if (known !== undefined) return known
    const [, region, account, keyId] = keyArn.exec(resource) ?? []
    if (region === undefined || account === undefined || keyId === undefined) return none
    return load(resource, account, region, keyId)
  }
}
