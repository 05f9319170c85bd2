/**
 * The Principal and NotPrincipal elements. Forms: AWS KMS Developer Guide, "Principal" in key policies, and IAM User Guide, "AWS JSON
 * policy elements: Principal". Nothing but the whole `*` is a wildcard, and groups are no principals.
 *
 * A caller answers to several names; how far a statement reaches him depends on which of them it uses.
 */

import type { Principal } from '../call.ts'
import { PolicyError } from './policy-error.ts'

/**
 * `direct`: the caller himself; `limited`: his role, or everybody, which a permissions boundary or session policy can still narrow;
 * `account`: only his account, which leaves the decision to the account's identity policies.
 */
export type Reach = 'direct' | 'limited' | 'account'

export interface Name {
  readonly text: string
  readonly reach: Reach
}

export interface PrincipalSet {
  /** Canonical names: `*`, account ids, ARNs, unique ids. */
  readonly names: ReadonlySet<string>
}

export const everyone = '*'

const accountForm = /^\d{12}$/
const rootForm = /^arn:(aws[a-z-]*):iam::(\d{12}):root$/
const identityForm =
  /^arn:(aws[a-z-]*):(?:iam::\d{12}:(?:user|role)|sts::\d{12}:(?:assumed-role\/[\w+=,.@-]+|federated-user))\/[\x21-\x7e]+$/
const uniqueIdForm = /^A(?:IDA|ROA)[A-Z0-9]{8,}$/
const serviceForm = /^[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?$/

/** @throws PolicyError for any other form than those AWS documents. */
export function parsePrincipals(element: unknown, partition: string | undefined): PrincipalSet {
  const names = new Set<string>()
  if (element === everyone) names.add(everyone)
  else if (isRecord(element)) {
    for (const [kind, value] of Object.entries(element)) {
      for (const text of asList(value)) {
        const name = canonicalName(kind, text, partition)
        if (name === undefined) throw invalidPrincipals()
        names.add(name)
      }
    }
  }
  if (names.size === 0) throw invalidPrincipals()
  return Object.freeze({ names })
}

export function invalidPrincipals(): PolicyError {
  return new PolicyError('principals', 'Policy contains a statement with one or more invalid principals.')
}

function canonicalName(kind: string, text: string, partition: string | undefined): string | undefined {
  if (kind === 'AWS') return canonicalAwsName(text, partition)
  // No caller of the gateway is a service or a federated identity provider: these statements are kept and match nobody.
  if (kind === 'Service' && serviceForm.test(text)) return `service ${text}`
  if (kind === 'Federated' && text !== '' && !/[*?]/.test(text)) return `federated ${text}`
  return undefined
}

function canonicalAwsName(text: string, partition: string | undefined): string | undefined {
  if (text === everyone || accountForm.test(text) || uniqueIdForm.test(text)) return text
  const root = rootForm.exec(text)
  const named = root ?? identityForm.exec(text)
  if (named === null || (partition !== undefined && named[1] !== partition)) return undefined
  if (root !== null) return root[2]
  return /[*?]/.test(text) || text.endsWith('/') ? undefined : text
}

/**
 * The names a caller answers to, strongest reach first. The root user is his account; an operator of the local socket has no name
 * that a policy could use.
 */
export function namesOf(principal: Principal): readonly Name[] {
  if (principal.type === 'operator') return []
  const everybody: Name = { text: everyone, reach: 'limited' }
  if (principal.type === 'root') return [{ text: principal.account, reach: 'direct' }, everybody]
  const account: Name = { text: principal.account, reach: 'account' }
  const self: Name = { text: principal.arn, reach: 'direct' }
  if (principal.type === 'user') return [self, { text: principal.principalId, reach: 'direct' }, everybody, account]
  const names: Name[] = [self]
  if (principal.roleArn !== undefined) names.push({ text: principal.roleArn, reach: 'limited' })
  // A unique id of a session is `<role id>:<session name>`; policies name the role by its id.
  names.push({ text: principal.principalId.split(':', 1)[0] as string, reach: 'limited' }, everybody, account)
  return names
}

/**
 * Whether a NotPrincipal element spares the caller. As documented, his account must be listed beside the user, and for a session the
 * account, the role and the session: AWS checks each in turn, and so does this.
 */
export function isSpared(set: PrincipalSet, principal: Principal): boolean {
  const { names } = set
  if (names.has(everyone)) return true
  if (!names.has(principal.account)) return false
  if (principal.type === 'root') return true
  const id = principal.principalId.split(':', 1)[0] as string
  if (principal.type === 'user') return names.has(principal.arn) || names.has(id)
  const sparesRole = names.has(id) || (principal.roleArn !== undefined && names.has(principal.roleArn))
  return sparesRole && names.has(principal.arn)
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A string or list of strings as a list. @throws PolicyError for anything else. */
function asList(value: unknown): readonly string[] {
  const list = Array.isArray(value) ? value : [value]
  if (!list.every((text) => typeof text === 'string')) throw invalidPrincipals()
  return list
}
