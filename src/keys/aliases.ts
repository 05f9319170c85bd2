/** Aliases: movable names of keys within one account and Region. An alias never touches its key. */
import type { Catalog, KeyEntry } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { specs } from './algorithms.ts'
import { renderAliasArn, renderKeyArn } from './identifiers.ts'
import { refuseStates } from './key-state.ts'
import { type KeyService, kmsPurposes, type Locale } from './keys.ts'

export type Aliases = Pick<KeyService, 'createAlias' | 'updateAlias' | 'deleteAlias' | 'findAlias' | 'listAliases'>

/** AWS KMS Developer Guide, "Resource quotas". */
const aliasesPerKey = 50

export function createAliases(parts: {
  readonly catalog: Catalog
  readonly partition: string
  readonly now: () => number
}): Aliases {
  const { catalog, partition, now } = parts

  async function requireRoom(target: KeyEntry): Promise<void> {
    const { account, region, keyId } = target.key
    const aliases = await catalog.listAliases(account, region, keyId, undefined, aliasesPerKey)
    if (aliases.length < aliasesPerKey) return
    const text = `The key ${renderKeyArn(partition, target.key)} has the most aliases it can have (${aliasesPerKey}).`
    throw new GatewayError('LimitExceeded', { text })
  }

  function refuseTarget(target: KeyEntry): void {
    refuseStates(renderKeyArn(partition, target.key), target.key.state, ['PendingDeletion', 'PendingReplicaDeletion'])
  }

  async function getAlias(name: string, locale: Locale) {
    const { account, region } = locale
    const alias = await catalog.findAlias(account, region, name)
    if (alias !== undefined) return alias
    const text = `Alias ${renderAliasArn(partition, { account, region, name })} is not found.`
    throw new GatewayError('KeyNotFound', { text })
  }

  return {
    findAlias: (name, locale) => catalog.findAlias(locale.account, locale.region, name),

    async createAlias(name, target) {
      refuseTarget(target)
      await requireRoom(target)
      const { account, region, keyId } = target.key
      const at = now()
      await catalog.createAlias({ account, region, name, keyId, createdAt: at, updatedAt: at })
    },

    async updateAlias(name, target, locale) {
      const alias = await getAlias(name, locale)
      refuseTarget(target)
      const { account, region } = locale
      const old = await catalog.findKey({ account, region, keyId: alias.keyId })
      if (old !== undefined && (kindOf(old) !== kindOf(target) || old.key.usage !== target.key.usage)) {
        const text = `Alias ${renderAliasArn(partition, alias)} cannot be changed from a key of type ${kindOf(old)} and usage ${old.key.usage} to one of type ${kindOf(target)} and usage ${target.key.usage}.`
        throw new GatewayError('ValidationFailed', { text })
      }
      if (alias.keyId !== target.key.keyId) await requireRoom(target)
      await catalog.updateAlias(account, region, name, target.key.keyId, now())
    },

    async deleteAlias(name, locale) {
      await getAlias(name, locale)
      await catalog.deleteAlias(locale.account, locale.region, name)
    },

    async listAliases(locale, keyId, after, limit) {
      const { account, region } = locale
      const aliases = await catalog.listAliases(account, region, keyId, after, limit + 1, kmsPurposes)
      return { aliases: aliases.slice(0, limit), more: aliases.length > limit }
    },
  }
}

function kindOf(entry: KeyEntry): 'symmetric' | 'asymmetric' | 'HMAC' {
  const { family } = specs[entry.key.spec]
  if (family === 'aes') return 'symmetric'
  return family === 'hmac' ? 'HMAC' : 'asymmetric'
}
