/**
 * What authorization wants to know about identities: the policies attached to a caller, synchronously once they are warm, and whether a
 * principal that a key policy names exists.
 */
import type { IdentityPolicy } from './authorize/authorize.ts'
import type { Principal } from './call.ts'
import type { Catalog } from './catalog/catalog.ts'
import type { Config } from './config/config.ts'

const maxCached = 10_000

/** Policies by principal; forgotten as soon as the catalog tells of any change of theirs. */
export function createIdentityPolicies(
  catalog: Catalog,
): (principal: Principal) => readonly IdentityPolicy[] | Promise<readonly IdentityPolicy[]> {
  const cached = new Map<string, readonly IdentityPolicy[]>()
  let changes = 0
  catalog.onChange(({ table }) => {
    if (table !== 'principal_policy' && table !== 'principal' && table !== '*') return
    changes++
    cached.clear()
  })

  return (principal) => {
    const known = cached.get(ownerArn(principal))
    if (known !== undefined) return narrow(principal, known)
    return load(principal).then((policies) => narrow(principal, policies))
  }

  async function load(principal: Principal): Promise<readonly IdentityPolicy[]> {
    const before = changes
    const owner = ownerOf(principal)
    if (owner === undefined) return []
    const rows = await catalog.principalPolicies(principal.account, owner.kind, owner.name)
    const policies = Object.freeze(rows.map(({ name, document }) => Object.freeze({ name, document })))
    if (before === changes) {
      if (cached.size >= maxCached) cached.clear()
      cached.set(ownerArn(principal), policies)
    }
    return policies
  }
}

/** Sessions of one role share its policies; what narrows a session is its own. */
function ownerArn(principal: Principal): string {
  return principal.roleArn ?? principal.arn
}

function narrow(principal: Principal, policies: readonly IdentityPolicy[]): readonly IdentityPolicy[] {
  const { sessionPolicy } = principal
  if (sessionPolicy === undefined) return policies
  return [...policies, { name: 'of the session', document: sessionPolicy, purpose: 'session' }]
}

function ownerOf(principal: Principal): { readonly kind: 'user' | 'role'; readonly name: string } | undefined {
  if (principal.type === 'user' && principal.userName !== undefined) return { kind: 'user', name: principal.userName }
  if (principal.type === 'role-session' && principal.roleArn !== undefined) {
    return { kind: 'role', name: principal.roleArn.slice(principal.roleArn.lastIndexOf('/') + 1) }
  }
  return undefined
}

/**
 * Whether the principal that a key policy names exists. Accounts that are not ours can't be looked up and are taken at their word,
 * as are services, names without a user or role in them, and bindings of TLS keys: those come and go, and a Deny may stand before they do.
 */
export async function principalExists(
  catalog: Catalog,
  config: Pick<Config, 'accounts'>,
  name: string,
): Promise<boolean> {
  const [, account = '', kind, path = ''] =
    /^arn:[^:]*:(?:iam|sts)::(\d{12}):(user|role|assumed-role)\/(.+)$/.exec(name) ?? []
  if (kind === undefined || !config.accounts.includes(account)) return true
  if (kind === 'user' && path.startsWith('hsmgate/tls/')) return true
  if (kind === 'assumed-role')
    return (await catalog.findPrincipal(account, 'role', path.split('/')[0] ?? '')) !== undefined
  const last = path.slice(path.lastIndexOf('/') + 1)
  return (await catalog.findPrincipal(account, kind as 'user' | 'role', last)) !== undefined
}
