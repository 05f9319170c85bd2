/**
 * What would be decided: the same authorizer, policies and grants as for real calls, asked about a call that nobody makes. What a call
 * would tell about itself (address, time, encryption context) is as unknown here as its conditions say, unless it is given.
 */
import { type Authorizer, addEncryptionContext } from './authorize/authorize.ts'
import type { Demand, Principal } from './call.ts'
import type { Catalog, PrincipalRecord } from './catalog/catalog.ts'
import { GatewayError } from './error.ts'
import type { KeyService, ResolvedKey } from './keys/keys.ts'

type Context = ReadonlyMap<string, string | readonly string[]>

export interface Situation {
  /** Picks the key where it is not an ARN, and the principal where it is a bare name. */
  readonly account: string
  readonly region: string
  /** IAM action, e.g. `kms:Decrypt`. */
  readonly action: string
  /** Key id, ARN or alias; without one, the resource is `*`. */
  readonly key?: string
  /** Condition keys as policies write them. `aws:CurrentTime` may be given; what describes the principal may not. */
  readonly context: Context
}

export interface SimulationResult {
  /** IAM's own words for it (IAM User Guide, "Testing IAM policies with the IAM policy simulator"). */
  readonly decision: 'allowed' | 'explicitDeny' | 'implicitDeny'
  readonly principal: string
  readonly resource: string
  /** What decided, as in audit records. */
  readonly decidedBy: string
  /** Every statement and grant that applies, decisive or not. */
  readonly statements: readonly {
    readonly source: string
    readonly statement: string
    readonly effect: 'Allow' | 'Deny'
    /** `account`: it leaves the decision to the caller's account. */
    readonly reach: string
  }[]
}

export interface Permitted {
  readonly principal: string
  readonly kind: 'user' | 'role'
  readonly by: string
  readonly decidedBy: string
}

export interface Simulation {
  /**
   * `principal`: ARN of a user, role or session, or `user/<name>`, `role/<name>`, or the name of a user.
   * @throws GatewayError `NotFound`, `KeyNotFound`.
   */
  simulate(situation: Situation & { readonly principal: string }): Promise<SimulationResult>
  /** The enabled users and roles of all accounts that may; in the order of their ARNs. */
  whoCan(situation: Situation & { readonly key: string }): Promise<readonly Permitted[]>
}

export interface SimulationParts {
  readonly authorizer: Authorizer
  readonly catalog: Pick<Catalog, 'findPrincipal' | 'listPrincipals'>
  readonly keys: Pick<KeyService, 'resolve'>
  readonly partition: string
  /** The demand of a call on a key, with the condition keys that describe the key and the caller's account. */
  readonly demandOnKey: (action: string, key: ResolvedKey, principal: Principal, region: string) => Demand
}

const encryptionContext = 'kms:encryptioncontext:'
/** What only a real call knows. */
const originKeys = ['aws:sourceip', 'aws:useragent', 'aws:securetransport']
const simulatedSession = 'simulated'

export function createSimulation(parts: SimulationParts): Simulation {
  const { authorizer, catalog, keys, partition, demandOnKey } = parts

  function principalOf(record: PrincipalRecord, sessionName = simulatedSession): Principal {
    const { account, kind, name, principalId, tags } = record
    if (kind === 'user') {
      const arn = `arn:${partition}:iam::${account}:user/${name}`
      return { type: 'user', arn, account, principalId, userName: name, tags }
    }
    return {
      type: 'role-session',
      arn: `arn:${partition}:sts::${account}:assumed-role/${name}/${sessionName}`,
      account,
      principalId: `${principalId}:${sessionName}`,
      roleArn: `arn:${partition}:iam::${account}:role/${name}`,
      issuedAt: Math.floor(Date.now() / 1000),
      tags,
    }
  }

  async function getPrincipal(text: string, account: string): Promise<Principal> {
    const named = parsePrincipalName(text, account)
    const record = named && (await catalog.findPrincipal(named.account, named.kind, named.name))
    if (record === undefined) throw new GatewayError('NotFound', { text: `There is no principal ${text}.` })
    return principalOf(record, named?.sessionName)
  }

  async function findKey({ key, account, region }: Situation): Promise<ResolvedKey | undefined> {
    if (key === undefined) return undefined
    const found = await keys.resolve(key, 'key-or-alias', { partition, account, region })
    if (found.entry === undefined) throw new GatewayError('NotFound', { text: `Key ${key} does not exist.` })
    return found
  }

  function demandOf(situation: Situation, key: ResolvedKey | undefined, principal: Principal): Demand {
    const { action, region } = situation
    const demand =
      key === undefined
        ? { action, resource: '*', resourceAccount: principal.account, resourcePolicy: null, context: new Map() }
        : demandOnKey(action, key, principal, region)
    const context = new Map(demand.context)
    for (const name of originKeys) context.delete(name)
    context.set('aws:requestedregion', region)
    const pairs: [string, string][] = []
    for (const [name, value] of situation.context) {
      const folded = name.toLowerCase()
      if (!folded.startsWith(encryptionContext)) context.set(folded, value)
      else
        for (const each of typeof value === 'string' ? [value] : value)
          pairs.push([name.slice(encryptionContext.length), each])
    }
    addEncryptionContext(context, pairs)
    return { ...demand, context }
  }

  return {
    async simulate(situation) {
      const principal = await getPrincipal(situation.principal, situation.account)
      const demand = demandOf(situation, await findKey(situation), principal)
      const { decision, applied } = await authorizer.explain(principal, demand)
      return {
        decision: decision.allowed
          ? 'allowed'
          : isExplicit(decision.statement, applied)
            ? 'explicitDeny'
            : 'implicitDeny',
        principal: principal.arn,
        resource: demand.resource,
        decidedBy: decision.statement,
        statements: applied,
      }
    },

    async whoCan(situation) {
      const key = await findKey(situation)
      const permitted: Permitted[] = []
      for (const record of await catalog.listPrincipals(undefined)) {
        if (!record.enabled) continue
        const principal = principalOf(record)
        const decision = await authorizer.decide(principal, demandOf(situation, key, principal))
        if (!decision.allowed) continue
        const { by, statement: decidedBy } = decision
        permitted.push({ principal: principal.roleArn ?? principal.arn, kind: record.kind, by, decidedBy })
      }
      return permitted.sort((a, b) => (a.principal < b.principal ? -1 : 1))
    },
  }
}

/** Across accounts the reason for a denial says no more than that it is one; the statement does. */
function isExplicit(statement: string, applied: SimulationResult['statements']): boolean {
  return applied.some((each) => each.effect === 'Deny' && each.statement === statement)
}

function parsePrincipalName(text: string, account: string) {
  const arn = /^arn:[^:]*:(?:iam|sts)::(\d{12}):(.+)$/.exec(text)
  const [kind = '', ...path] = (arn?.[2] ?? (text.includes('/') ? text : `user/${text}`)).split('/')
  const owner = arn?.[1] ?? account
  if (kind === 'assumed-role' && path.length === 2) {
    return { account: owner, kind: 'role' as const, name: path[0] as string, sessionName: path[1] as string }
  }
  if ((kind !== 'user' && kind !== 'role') || path.length === 0) return undefined
  return { account: owner, kind: kind as 'user' | 'role', name: path.at(-1) as string, sessionName: undefined }
}
