import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import type { GatewayError } from '../../../src/error.ts'
import { account, enabledKey, newKey, region, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, openStore } from '../../support/catalog-store.ts'

let store: CatalogStore
let catalog: Catalog
const reported: GatewayError[] = []

const open = async () => {
  const opened = await openCatalog({ ...store.options, report: (error) => reported.push(error) })
  opened.useSeal(softwareSeal())
  return opened
}
const reopen = async () => {
  await catalog[Symbol.asyncDispose]()
  catalog = await open()
}
const user = (name: string) => ({
  account,
  kind: 'user' as const,
  name,
  principalId: `AIDA${name.toUpperCase()}`,
  enabled: true,
  createdAt: 1,
  tags: { team: 'a' },
  trustPolicy: null,
})
const accessKey = (accessKeyId: string, name = 'anna') => ({
  accessKeyId,
  account,
  user: name,
  sealedSecret: Buffer.from(`sealed ${accessKeyId}`),
  active: true,
  createdAt: 2,
})
const policy = (name: string, document = '{}', principal = 'anna') => ({
  account,
  kind: 'user' as const,
  principal,
  name,
  document,
})

beforeEach(async () => {
  store = await openStore()
  reported.length = 0
  catalog = await open()
  await catalog.createPrincipal(user('anna'))
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
})

describe('a principal', () => {
  it('comes back after a restart as it was written', async () => {
    const role = { ...user('r'), kind: 'role' as const, principalId: 'AROAX', trustPolicy: '{"Statement":[]}' }
    await catalog.createPrincipal(role)
    await reopen()
    expect(await catalog.findPrincipal(account, 'role', 'r')).toEqual({ ...role, revision: 2 })
    expect(await catalog.findPrincipal(account, 'user', 'r')).toBeUndefined()
    expect((await catalog.listPrincipals(undefined)).map(({ name }) => name)).toEqual(['r', 'anna'])
    expect(await catalog.listPrincipals('999999999999')).toEqual([])
  })

  it('exists once', async () => {
    const again = catalog.createPrincipal({ ...user('anna'), principalId: 'AIDAOTHER' })
    await expect(again).rejects.toMatchObject({
      code: 'AlreadyExists',
      params: { text: 'User with name anna already exists.' },
    })
  })

  it('goes with its policies and access keys', async () => {
    await catalog.createAccessKey(accessKey('AKIA1'))
    await catalog.putPrincipalPolicy(policy('p'))
    expect(await catalog.findCredential('AKIA1')).toBeDefined()
    await catalog.deletePrincipal(account, 'user', 'anna')
    expect(await catalog.findCredential('AKIA1')).toBeUndefined()
    expect(await catalog.findPrincipal(account, 'user', 'anna')).toBeUndefined()
    expect(await catalog.principalPolicies(account, 'user', 'anna')).toEqual([])
    expect(await catalog.activeAccessKeys()).toEqual([])
    await expect(catalog.deletePrincipal(account, 'user', 'anna')).rejects.toMatchObject({ code: 'NotFound' })
  })

  it('that is damaged is refused, and does not hide the others', async () => {
    await catalog.createPrincipal(user('bert'))
    await catalog.setPrincipalEnabled(account, 'user', 'anna', false)
    await store.run("update principal set enabled = 1 where name = 'anna'")
    await reopen()
    await expect(catalog.findPrincipal(account, 'user', 'anna')).rejects.toMatchObject({
      code: 'IntegrityFailed',
      detail: expect.stringContaining(`${account}/user/anna of table principal`),
    })
    expect((await catalog.listPrincipals(account)).map(({ name }) => name)).toEqual(['bert'])
    expect(reported).toMatchObject([{ code: 'IntegrityFailed' }])
  })
})

describe('the policies of a principal', () => {
  it('are put, replaced and deleted', async () => {
    await catalog.putPrincipalPolicy(policy('b', '{"b":1}'))
    await catalog.putPrincipalPolicy(policy('a', '{"a":1}'))
    expect((await catalog.principalPolicies(account, 'user', 'anna')).map(({ name }) => name)).toEqual(['a', 'b'])
    await catalog.putPrincipalPolicy(policy('b', '{"b":2}'))
    await catalog.deletePrincipalPolicy(account, 'user', 'anna', 'a')
    expect(await catalog.principalPolicies(account, 'user', 'anna')).toEqual([
      { ...policy('b', '{"b":2}'), revision: 4 },
    ])
    await expect(catalog.deletePrincipalPolicy(account, 'user', 'anna', 'a')).rejects.toMatchObject({
      code: 'NotFound',
    })
  })

  it('need a principal', async () => {
    const put = catalog.putPrincipalPolicy(policy('p', '{}', 'nobody'))
    await expect(put).rejects.toMatchObject({
      code: 'NotFound',
      params: { text: 'The user with name nobody cannot be found.' },
    })
  })

  it('are refused as a whole when one of them is damaged, for it may be the one that denies', async () => {
    await catalog.putPrincipalPolicy(policy('allow'))
    await catalog.putPrincipalPolicy(policy('deny'))
    await store.run("update principal_policy set document = '[]' where name = 'deny'")
    await reopen()
    await expect(catalog.principalPolicies(account, 'user', 'anna')).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })
})

describe('a principal whose rows were exchanged for others with right seals', () => {
  const attack = async (...statements: string[]) => {
    for (const statement of statements) await store.run(statement)
  }

  it('is refused when the policy that denies is deleted', async () => {
    await catalog.putPrincipalPolicy(policy('allow'))
    await catalog.putPrincipalPolicy(policy('deny'))
    await attack("delete from principal_policy where name = 'deny'")
    await reopen()
    await expect(catalog.principalPolicies(account, 'user', 'anna')).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })

  it('is refused when an older policy is put back', async () => {
    await catalog.putPrincipalPolicy(policy('p', '{"wide":1}'))
    await attack('create table older as select * from principal_policy')
    await catalog.putPrincipalPolicy(policy('p', '{"narrow":1}'))
    await attack('delete from principal_policy', 'insert into principal_policy select * from older')
    await reopen()
    await expect(catalog.principalPolicies(account, 'user', 'anna')).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })

  it('is refused when an access key that was deleted is put back', async () => {
    await catalog.createAccessKey(accessKey('AKIA1'))
    await attack('create table older as select * from access_key')
    await catalog.deleteAccessKey('AKIA1')
    await attack('insert into access_key select * from older')
    await reopen()
    await expect(catalog.findCredential('AKIA1')).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })

  it('can still be deleted', async () => {
    await catalog.putPrincipalPolicy(policy('deny'))
    await attack('delete from principal_policy')
    await reopen()
    await catalog.deletePrincipal(account, 'user', 'anna')
    expect(await catalog.findPrincipal(account, 'user', 'anna')).toBeUndefined()
  })
})

describe('an access key', () => {
  it('is found with its principal by its id alone', async () => {
    await catalog.createAccessKey(accessKey('AKIA1'))
    await reopen()
    const found = await catalog.findCredential('AKIA1')
    expect(found).toEqual({
      accessKey: { ...accessKey('AKIA1'), revision: 2 },
      principal: { ...user('anna'), revision: 2 },
    })
    expect(await catalog.findCredential('AKIA1')).toBe(found)
    expect(await catalog.findCredential('AKIA2')).toBeUndefined()
  })

  it('shows at the next look-up that it or its principal was switched off', async () => {
    await catalog.createAccessKey(accessKey('AKIA1'))
    await catalog.findCredential('AKIA1')
    await catalog.setAccessKeyActive('AKIA1', false)
    expect((await catalog.findCredential('AKIA1'))!.accessKey.active).toBe(false)
    await catalog.setPrincipalEnabled(account, 'user', 'anna', false)
    expect((await catalog.findCredential('AKIA1'))!.principal.enabled).toBe(false)
  })

  it('is listed, switched and deleted', async () => {
    await catalog.createPrincipal(user('bert'))
    for (const key of [accessKey('AKIA1'), accessKey('AKIA2', 'bert')]) await catalog.createAccessKey(key)
    await catalog.setAccessKeyActive('AKIA1', false)
    expect((await catalog.activeAccessKeys()).map((key) => key.accessKeyId)).toEqual(['AKIA2'])
    expect((await catalog.listAccessKeys(account, 'anna')).map((key) => key.accessKeyId)).toEqual(['AKIA1'])
    expect(await catalog.listAccessKeys(account, undefined)).toHaveLength(2)
    await catalog.deleteAccessKey('AKIA1')
    expect(await catalog.findCredential('AKIA1')).toBeUndefined()
    await expect(catalog.deleteAccessKey('AKIA1')).rejects.toMatchObject({ code: 'NotFound' })
    await expect(catalog.setAccessKeyActive('AKIA1', true)).rejects.toMatchObject({ code: 'NotFound' })
  })

  it('needs its user and an id of its own', async () => {
    await catalog.createAccessKey(accessKey('AKIA1'))
    await expect(catalog.createAccessKey(accessKey('AKIA1'))).rejects.toMatchObject({ code: 'AlreadyExists' })
    await expect(catalog.createAccessKey(accessKey('AKIA2', 'nobody'))).rejects.toMatchObject({ code: 'NotFound' })
  })

  it('that is given to another user behind the gateway’s back is refused, and the others still work', async () => {
    await catalog.createPrincipal(user('root'))
    await catalog.createAccessKey(accessKey('AKIA1'))
    await catalog.createAccessKey(accessKey('AKIA2'))
    await store.run("update access_key set \"user\" = 'root' where access_key_id = 'AKIA1'")
    await reopen()
    await expect(catalog.findCredential('AKIA1')).rejects.toMatchObject({ code: 'IntegrityFailed' })
    expect((await catalog.activeAccessKeys()).map((key) => key.accessKeyId)).toEqual(['AKIA2'])
  })
})

describe('an alias', () => {
  const alias = (name: string, keyId: string) => ({ account, region, name, keyId, createdAt: 1, updatedAt: 1 })

  it('moves from key to key and is seen to move', async () => {
    const [a, b] = [await enabledKey(catalog), await enabledKey(catalog, newKey())]
    await catalog.createAlias(alias('alias/app', a.key.keyId))
    expect((await catalog.findAlias(account, region, 'alias/app'))!.keyId).toBe(a.key.keyId)
    await catalog.updateAlias(account, region, 'alias/app', b.key.keyId, 9)
    const moved = { ...alias('alias/app', b.key.keyId), updatedAt: 9 }
    expect(await catalog.findAlias(account, region, 'alias/app')).toEqual(moved)
    expect(await catalog.findAlias(account, 'eu-west-1', 'alias/app')).toBeUndefined()
    expect(await catalog.deleteAlias(account, region, 'alias/app')).toBe(true)
    expect(await catalog.deleteAlias(account, region, 'alias/app')).toBe(false)
    expect(await catalog.findAlias(account, region, 'alias/app')).toBeUndefined()
  })

  it('is listed by key and in pages', async () => {
    const [a, b] = [await enabledKey(catalog), await enabledKey(catalog)]
    for (const name of ['alias/3', 'alias/1', 'alias/2']) await catalog.createAlias(alias(name, a.key.keyId))
    await catalog.createAlias(alias('alias/0', b.key.keyId))
    const names = async (keyId: string | undefined, after: string | undefined, limit: number) =>
      (await catalog.listAliases(account, region, keyId, after, limit)).map(({ name }) => name)
    expect(await names(a.key.keyId, undefined, 2)).toEqual(['alias/1', 'alias/2'])
    expect(await names(a.key.keyId, 'alias/2', 2)).toEqual(['alias/3'])
    expect(await names(undefined, undefined, 10)).toEqual(['alias/0', 'alias/1', 'alias/2', 'alias/3'])
  })

  it('exists once, and only for a key', async () => {
    const { key } = await enabledKey(catalog)
    await catalog.createAlias(alias('alias/app', key.keyId))
    await expect(catalog.createAlias(alias('alias/app', key.keyId))).rejects.toMatchObject({
      code: 'AlreadyExists',
      params: { text: `An alias with the name arn:aws:kms:${region}:${account}:alias/app already exists` },
    })
    const unknown = newKey().key.keyId
    await expect(catalog.createAlias(alias('alias/b', unknown))).rejects.toMatchObject({ code: 'KeyNotFound' })
    const moved = catalog.updateAlias(account, region, 'alias/app', unknown, 2)
    await expect(moved).rejects.toMatchObject({ code: 'KeyNotFound' })
    await expect(catalog.updateAlias(account, region, 'alias/no', key.keyId, 2)).rejects.toMatchObject({
      code: 'NotFound',
      params: { text: `Alias arn:aws:kms:${region}:${account}:alias/no is not found.` },
    })
  })
})

describe('a setting', () => {
  it('is kept and replaced', async () => {
    expect(await catalog.getSetting('clock')).toBeUndefined()
    await catalog.putSetting('clock', '1')
    await catalog.putSetting('clock', '2')
    await reopen()
    expect(await catalog.getSetting('clock')).toBe('2')
  })
})
