/** Looks up what a request's KeyId member names: bare id, key ARN, alias name or alias ARN, with AWS's wording of every refusal. */
import type { Catalog } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { isKeyId, parseKmsArn, renderAliasArn, renderKeyArn } from './identifiers.ts'
import type { Locale, ResolvedKey } from './keys.ts'

function notFound(text: string): GatewayError {
  return new GatewayError('KeyNotFound', { text })
}

export async function resolveKey(
  catalog: Catalog,
  reference: string,
  accepts: 'key' | 'key-or-alias',
  locale: Locale,
): Promise<ResolvedKey> {
  if (reference.startsWith('arn:')) return resolveArn(catalog, reference, accepts, locale)
  if (reference.startsWith('alias/')) {
    if (accepts === 'key') throw notFound(`Invalid keyId '${reference}'`)
    return resolveAlias(catalog, { account: locale.account, region: locale.region, name: reference }, locale)
  }
  if (!isKeyId(reference)) throw notFound(`Invalid keyId '${reference}'`)
  return resolveId(catalog, locale.account, reference, locale)
}

async function resolveArn(
  catalog: Catalog,
  reference: string,
  accepts: 'key' | 'key-or-alias',
  locale: Locale,
): Promise<ResolvedKey> {
  const arn = parseKmsArn(reference)
  if (arn === undefined || arn.partition !== locale.partition) throw notFound(`Invalid arn ${reference}`)
  if (arn.region !== locale.region) throw notFound(`Invalid arn ${arn.region}`)
  if (arn.kind === 'alias') {
    if (accepts === 'key') throw notFound(`Invalid keyId '${reference}'`)
    return resolveAlias(catalog, { account: arn.account, region: arn.region, name: arn.name }, locale)
  }
  if (!isKeyId(arn.name)) throw notFound(`Invalid keyId '${arn.name}'`)
  return resolveId(catalog, arn.account, arn.name, locale)
}

async function resolveId(catalog: Catalog, account: string, keyId: string, locale: Locale): Promise<ResolvedKey> {
  const name = { account, region: locale.region, keyId }
  const arn = renderKeyArn(locale.partition, name)
  const entry = catalog.peekKey(name) ?? (await catalog.findKey(name))
  if (entry === undefined && account === locale.account) throw notFound(`Key '${arn}' does not exist`)
  return { arn, account, entry }
}

async function resolveAlias(
  catalog: Catalog,
  alias: { readonly account: string; readonly region: string; readonly name: string },
  locale: Locale,
): Promise<ResolvedKey> {
  const record = await catalog.findAlias(alias.account, alias.region, alias.name)
  const aliasArn = renderAliasArn(locale.partition, alias)
  if (record === undefined) {
    if (alias.account === locale.account) throw notFound(`Alias ${aliasArn} is not found.`)
    return { arn: aliasArn, account: alias.account, entry: undefined, alias: alias.name }
  }
  return { ...(await resolveId(catalog, alias.account, record.keyId, locale)), alias: alias.name }
}
