/**
 * Sees to it that a development gateway has an administrator whose access key is in the credentials file. What an operator did to the
 * administrator on purpose (disabled him, changed his policies) stays done.
 */
import type { Administration, UserDescription } from '../administration.ts'
import { isCode } from '../error.ts'
import { type Credentials, findCredentials, keepAside, saveCredentials } from './credentials-file.ts'

export const administratorName = 'administrator'

const policyName = 'administrator'
const allowEverything = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Sid: 'Everything', Effect: 'Allow', Action: '*', Resource: '*' }],
})

export interface AdministratorParts {
  readonly administration: Administration
  readonly account: string
  /** Regions that the gateway serves; the first is the default. */
  readonly regions: readonly string[]
  readonly credentialsFile: string
  readonly now: () => number
}

export interface Administrator {
  /** Absent when there are none that work; `notes` say why. */
  readonly credentials?: Credentials
  /** What an operator should know, one line each. */
  readonly notes: readonly string[]
}

export async function ensureAdministrator(parts: AdministratorParts): Promise<Administrator> {
  const { administration, account, regions, credentialsFile } = parts
  const notes: string[] = []
  const stored = await findCredentials(credentialsFile)
  if (stored) {
    const known = (await administration.listAccessKeys(account)).find((key) => key.accessKeyId === stored.accessKeyId)
    if (known !== undefined) return judge(parts, known, stored)
    notes.push(
      `${credentialsFile}: the gateway no longer knows access key ${stored.accessKeyId} (another catalog, or deleted)`,
    )
  } else if (stored === null) notes.push(`${credentialsFile}: holds no complete profile default`)

  const user = await completeUser(administration, account)
  if (!user.enabled)
    return { notes: [...notes, `user ${user.name} is disabled; hsmgate principal enable ${user.name}`] }
  const made = await createAccessKey(administration, account)
  if (typeof made === 'string') return { notes: [...notes, made] }
  const { accessKeyId, secretAccessKey } = made
  if (stored !== undefined) {
    const aside = await keepAside(credentialsFile, new Date(parts.now()))
    notes.push(`the old file is kept as ${aside}; a new access key of ${administratorName} takes its place`)
  }
  const credentials = { accessKeyId, secretAccessKey, region: regions[0]! }
  await saveCredentials(credentialsFile, credentials)
  return { credentials, notes }
}

async function judge(
  { administration, account, regions, credentialsFile }: AdministratorParts,
  {
    user: name,
    active,
    accessKeyId,
  }: { readonly user: string; readonly active: boolean; readonly accessKeyId: string },
  stored: Credentials,
): Promise<Administrator> {
  const user = (await administration.listUsers(account)).find((candidate) => candidate.name === name)
  if (user?.enabled === false) {
    return { notes: [`${credentialsFile}: user ${name} is disabled; hsmgate principal enable ${name}`] }
  }
  if (!active) {
    return { notes: [`${credentialsFile}: its access key is disabled; hsmgate principal key enable ${accessKeyId}`] }
  }
  if (!regions.includes(stored.region)) {
    return {
      notes: [
        `${credentialsFile}: the gateway does not serve Region ${stored.region}; name ${regions.join(' or ')} in it`,
      ],
    }
  }
  return { credentials: stored, notes: [] }
}

/** Also completes a user that a start left half made. */
async function completeUser(administration: Administration, account: string): Promise<UserDescription> {
  const users = await administration.listUsers(account)
  const found = users.find(({ name }) => name === administratorName)
  const user = found ?? (await administration.createUser(account, administratorName))
  if ((await administration.getPolicies(account, administratorName)).length === 0) {
    await administration.putPolicy(account, administratorName, policyName, allowEverything)
  }
  return user
}

/** What stands in the way, in words, when the administrator has as many keys as a user may have. */
async function createAccessKey(administration: Administration, account: string) {
  try {
    return await administration.createAccessKey(account, administratorName)
  } catch (cause) {
    if (!isCode(cause, 'LimitExceeded')) throw cause
    const keys = await administration.listAccessKeys(account, administratorName)
    const ids = keys.map(({ accessKeyId }) => accessKeyId).join(' and ')
    return `user ${administratorName} has access keys whose secrets are not here (${ids}); delete one with hsmgate principal key delete, then start again`
  }
}
