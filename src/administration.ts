/**
 * What an operator does to principals: users, their policies and access keys; roles are in roles.ts. Secrets are made here, returned once, kept only sealed
 * under an HSM key, and unsealed into the credential store that authentication reads. Writers are serialised by the catalog.
 */
import { randomBytes } from 'node:crypto'
import type { CredentialStore } from './authenticate/authenticate.ts'
import { PolicyError, parsePolicy } from './authorize/authorize.ts'
import type { Principal } from './call.ts'
import type { AccessKeyRecord, Catalog, PrincipalRecord } from './catalog/catalog.ts'
import { GatewayError } from './error.ts'
import { createRoleAdministration, type RoleAdministration } from './roles.ts'

/** Seals secrets under a system key, bound to what they belong to. */
export interface Sealer {
  seal(secret: Uint8Array, context: string): Promise<Buffer>
  unseal(sealed: Uint8Array, context: string): Promise<Buffer>
}

export interface UserDescription {
  readonly account: string
  readonly name: string
  readonly arn: string
  readonly principalId: string
  readonly enabled: boolean
  readonly createdAt: number
}

export interface AccessKeyDescription {
  readonly accessKeyId: string
  readonly user: string
  readonly active: boolean
  readonly createdAt: number
}

export interface Administration extends RoleAdministration {
  /** @throws GatewayError `ValidationFailed`, `AlreadyExists`. */
  createUser(account: string, name: string): Promise<UserDescription>
  listUsers(account?: string): Promise<readonly UserDescription[]>
  setUserEnabled(account: string, name: string, enabled: boolean): Promise<void>
  deleteUser(account: string, name: string): Promise<void>
  /** @throws GatewayError `PolicyMalformed`. */
  putPolicy(account: string, user: string, policyName: string, document: string): Promise<void>
  deletePolicy(account: string, user: string, policyName: string): Promise<void>
  getPolicies(account: string, user: string): Promise<readonly { readonly name: string; readonly document: string }[]>
  /** The secret is in the answer and nowhere else in clear but in memory. */
  createAccessKey(account: string, user: string): Promise<AccessKeyDescription & { readonly secretAccessKey: string }>
  listAccessKeys(account: string, user?: string): Promise<readonly AccessKeyDescription[]>
  setAccessKeyActive(accessKeyId: string, active: boolean): Promise<void>
  deleteAccessKey(accessKeyId: string): Promise<void>
  /** Unseals every active access key of enabled users; at start. Answers how many could not be unsealed. */
  loadCredentials(): Promise<{ readonly loaded: number; readonly failed: readonly string[] }>
  /** Brings the credentials of a user to what the catalog says now. Answers the access keys that could not be unsealed. */
  reloadUser(account: string, name: string): Promise<readonly string[]>
  /** The same for all users. */
  reloadUsers(): Promise<readonly string[]>
  /** The name in the change table of the user that a principal is. */
  userOf(principal: Pick<Principal, 'account' | 'userName'>): string
}

export interface AdministrationParts {
  readonly catalog: Catalog
  readonly sealer: Sealer
  readonly credentials: CredentialStore
  readonly partition: string
  readonly accounts: readonly string[]
  /** Epoch milliseconds. */
  readonly now: () => number
}

type AccessKeyName = Pick<AccessKeyRecord, 'account' | 'user' | 'accessKeyId'>

/** IAM's own limit: two access keys a user (IAM User Guide, "IAM and AWS STS quotas"). */
const accessKeysPerUser = 2
const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

export function userArn(partition: string, account: string, name: string): string {
  return `arn:${partition}:iam::${account}:user/${name}`
}

export function createAdministration(parts: AdministrationParts): Administration {
  const { catalog, sealer, credentials, partition, accounts, now } = parts
  /** Counts credentials that were taken out, by whatever name. */
  let withdrawals = 0

  function describe({ account, name, principalId, enabled, createdAt }: PrincipalRecord): UserDescription {
    return { account, name, arn: userArn(partition, account, name), principalId, enabled, createdAt }
  }

  async function getUser(account: string, name: string): Promise<PrincipalRecord> {
    const user = await catalog.findPrincipal(account, 'user', name)
    if (user === undefined) throw new GatewayError('NotFound', { text: `The user with name ${name} cannot be found.` })
    return user
  }

  async function getAccessKey(accessKeyId: string): Promise<AccessKeyRecord> {
    const keys = await catalog.listPrincipals(undefined)
    for (const account of new Set(keys.map((row) => row.account))) {
      const found = (await catalog.listAccessKeys(account, undefined)).find((row) => row.accessKeyId === accessKeyId)
      if (found !== undefined) return found
    }
    throw new GatewayError('NotFound', { text: `The Access Key with id ${accessKeyId} cannot be found.` })
  }

  function principalOf(user: PrincipalRecord, accessKeyId: string): Principal {
    const { account, name, principalId, tags } = user
    return Object.freeze({
      type: 'user',
      arn: userArn(partition, account, name),
      account,
      principalId,
      userName: name,
      accessKeyId,
      tags,
    })
  }

  async function load(key: AccessKeyRecord): Promise<void> {
    await admit(key, await sealer.unseal(key.sealedSecret, sealContext(key)))
  }

  /**
   * Lets an access key in, or wipes its secret, as the catalog says now: the module took its time, and what was withdrawn meanwhile
   * must not come back.
   */
  async function admit({ accessKeyId }: Pick<AccessKeyRecord, 'accessKeyId'>, secret: Buffer): Promise<void> {
    for (;;) {
      const before = withdrawals
      const found = await catalog.findCredential(accessKeyId)
      if (before !== withdrawals) continue
      if (found?.principal.enabled === true && found.accessKey.active)
        credentials.put({ accessKeyId, secret, principal: principalOf(found.principal, accessKeyId) })
      else secret.fill(0)
      return
    }
  }

  // What another gateway did is read again by credential-changes.ts; what is being let in at this moment looks again.
  catalog.onChange(({ own }) => {
    if (!own) withdrawals++
  })

  async function reloadUser(account: string, name: string): Promise<readonly string[]> {
    const user = await catalog.findPrincipal(account, 'user', name)
    const keys = user?.enabled === true ? await catalog.listAccessKeys(account, name) : []
    const active = keys.filter((key) => key.active)
    for (const id of credentials.idsOf(userArn(partition, account, name))) {
      if (!active.some(({ accessKeyId }) => accessKeyId === id)) credentials.drop(id)
    }
    const failed: string[] = []
    for (const key of active) {
      if (credentials.find(key.accessKeyId) === undefined) await load(key).catch(() => failed.push(key.accessKeyId))
    }
    return failed
  }

  return {
    ...createRoleAdministration({ catalog, partition, accounts, now }),

    reloadUser,

    async reloadUsers() {
      const failed: string[] = []
      const users = (await catalog.listPrincipals(undefined)).filter(({ kind }) => kind === 'user')
      const known = new Set(users.map(({ account, name }) => userArn(partition, account, name)))
      for (const arn of credentials.principals()) if (!known.has(arn)) credentials.dropPrincipal(arn)
      for (const { account, name } of users) failed.push(...(await reloadUser(account, name)))
      return failed
    },

    userOf: ({ account, userName = '' }) => `${account}/user/${userName}`,

    async createUser(account, name) {
      if (!accounts.includes(account)) {
        throw new GatewayError('ValidationFailed', { text: `Account ${account} is not configured.` })
      }
      // IAM User Guide, "IAM name requirements".
      if (!/^[\w+=,.@-]{1,64}$/.test(name)) {
        throw new GatewayError('ValidationFailed', {
          text: 'A user name has 1 to 64 letters, digits and any of _+=,.@-',
        })
      }
      const principal = await catalog.createPrincipal({
        account,
        kind: 'user',
        name,
        principalId: `AIDA${randomBase32(17)}`,
        enabled: true,
        createdAt: now(),
        tags: {},
        trustPolicy: null,
      })
      return describe(principal)
    },

    async listUsers(account) {
      return (await catalog.listPrincipals(account)).filter(({ kind }) => kind === 'user').map(describe)
    },

    async setUserEnabled(account, name, enabled) {
      await getUser(account, name)
      await catalog.setPrincipalEnabled(account, 'user', name, enabled)
      withdrawals++
      credentials.dropPrincipal(userArn(partition, account, name))
      if (!enabled) return
      for (const key of await catalog.listAccessKeys(account, name)) if (key.active) await load(key)
    },

    async deleteUser(account, name) {
      await getUser(account, name)
      await catalog.deletePrincipal(account, 'user', name)
      withdrawals++
      credentials.dropPrincipal(userArn(partition, account, name))
    },

    async putPolicy(account, user, policyName, document) {
      await getUser(account, user)
      try {
        parsePolicy('identity', document)
      } catch (cause) {
        if (cause instanceof PolicyError) throw new GatewayError('PolicyMalformed', { text: cause.message }, { cause })
        throw cause
      }
      await catalog.putPrincipalPolicy({ account, kind: 'user', principal: user, name: policyName, document })
    },

    async deletePolicy(account, user, policyName) {
      await getUser(account, user)
      await catalog.deletePrincipalPolicy(account, 'user', user, policyName)
    },

    async getPolicies(account, user) {
      await getUser(account, user)
      const policies = await catalog.principalPolicies(account, 'user', user)
      return policies.map(({ name, document }) => ({ name, document }))
    },

    async createAccessKey(account, name) {
      await getUser(account, name)
      if ((await catalog.listAccessKeys(account, name)).length >= accessKeysPerUser) {
        const text = `Cannot exceed quota for AccessKeysPerUser: ${accessKeysPerUser}`
        throw new GatewayError('LimitExceeded', { text })
      }
      const accessKeyId = `AKIA${randomBase32(16)}`
      // 30 random bytes are 40 base64 characters, the length of AWS's own.
      const secretAccessKey = randomBytes(30).toString('base64')
      const secret = Buffer.from(secretAccessKey)
      const sealedSecret = await sealer.seal(secret, sealContext({ accessKeyId, account, user: name }))
      const createdAt = now()
      await catalog.createAccessKey({ accessKeyId, account, user: name, sealedSecret, active: true, createdAt })
      await admit({ accessKeyId }, secret)
      return { accessKeyId, user: name, active: true, createdAt, secretAccessKey }
    },

    async listAccessKeys(account, user) {
      const keys = await catalog.listAccessKeys(account, user)
      return keys.map(({ accessKeyId, user: owner, active, createdAt }) => ({
        accessKeyId,
        user: owner,
        active,
        createdAt,
      }))
    },

    async setAccessKeyActive(accessKeyId, active) {
      const key = await getAccessKey(accessKeyId)
      await catalog.setAccessKeyActive(accessKeyId, active)
      withdrawals++
      credentials.drop(accessKeyId)
      if (active) await load(key)
    },

    async deleteAccessKey(accessKeyId) {
      await getAccessKey(accessKeyId)
      await catalog.deleteAccessKey(accessKeyId)
      withdrawals++
      credentials.drop(accessKeyId)
    },

    async loadCredentials() {
      const failed: string[] = []
      let loaded = 0
      for (const key of await catalog.activeAccessKeys()) {
        try {
          const user = await catalog.findPrincipal(key.account, 'user', key.user)
          if (user?.enabled !== true) continue
          await load(key)
          loaded++
        } catch {
          failed.push(key.accessKeyId)
        }
      }
      return { loaded, failed }
    },
  }
}

/** A sealed secret is of use only with its own row. */
function sealContext(key: AccessKeyName): string {
  return `access-key\0${key.account}\0${key.user}\0${key.accessKeyId}`
}

function randomBase32(length: number): string {
  return Array.from(randomBytes(length), (byte) => base32[byte & 31]).join('')
}
