import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, GrantRecord, KeyName, NewGrant, RowSeal } from '../../../src/catalog/catalog.ts'
import { addGrant, findById, noGrants, removeGrant } from '../../../src/catalog/grant-set.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import type { GatewayError } from '../../../src/error.ts'
import { account, enabledKey, nameOf, newKey, region, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, openStore } from '../../support/catalog-store.ts'

let store: CatalogStore
let catalog: Catalog
let seals = 0
const reported: GatewayError[] = []

const countingSeal = (): RowSeal => {
  const seal = softwareSeal()
  return {
    compute: (bytes) => {
      seals++
      return seal.compute(bytes)
    },
  }
}
const open = async () => {
  const opened = await openCatalog({ ...store.options, report: (error) => reported.push(error) })
  opened.useSeal(countingSeal())
  return opened
}
const reopen = async () => {
  await catalog[Symbol.asyncDispose]()
  catalog = await open()
}

const grantee = `arn:aws:iam::${account}:user/alice`
const retiring = 'arn:aws:iam::444455556666:role/retirer'
const grantOn = (name: KeyName, changes: Partial<NewGrant> = {}): NewGrant => ({
  ...name,
  grantId: randomBytes(32).toString('hex'),
  name: '',
  granteePrincipal: grantee,
  issuingAccount: account,
  operations: ['Encrypt', 'Decrypt'],
  createdAt: 1_790_000_000_000,
  ...changes,
})
const always = () => undefined
const newName = async (): Promise<KeyName> => {
  const key = newKey()
  await enabledKey(catalog, key)
  return nameOf(key)
}

beforeEach(async () => {
  store = await openStore()
  reported.length = 0
  catalog = await open()
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
})

describe('a grant', () => {
  it('comes back after a restart exactly as it was made, frozen in depth', async () => {
    const name = await newName()
    const full = grantOn(name, {
      name: 'a/name',
      retiringPrincipal: retiring,
      constraints: { encryptionContextSubset: { Abteilung: 'Ünï', __proto__x: 'y' }, sourceArn: 'arn:aws:s3:::b' },
    })
    const service: NewGrant = {
      ...name,
      grantId: 'ab'.repeat(32),
      name: '',
      granteeServicePrincipal: 'dynamodb.amazonaws.com',
      retiringServicePrincipal: 'dynamodb.amazonaws.com',
      issuingAccount: account,
      operations: ['Decrypt'],
      createdAt: 5,
    }
    const made = [await catalog.createGrant(full, always), await catalog.createGrant(service, always)]
    const keyArn = `arn:aws:kms:${region}:${account}:key/${name.keyId}`
    const expected = [full, service].map((grant) => ({ ...grant, keyArn }))
    expect(made).toEqual(expected)
    await reopen()
    const found = await catalog.findGrants(name)
    expect(found).toEqual(expected.sort((a, b) => (a.grantId < b.grantId ? -1 : 1)))
    expect(Object.isFrozen(found) && Object.isFrozen(found[0]) && Object.isFrozen(found[0]?.operations)).toBe(true)
  })

  it('does not make the key heavier: the key is loaded without it, and a second one costs as many seals as the first', async () => {
    const name = await newName()
    const costs: number[] = []
    for (let count = 0; count < 12; count++) {
      seals = 0
      await catalog.createGrant(grantOn(name), always)
      costs.push(seals)
    }
    expect(new Set(costs).size).toBe(1)
    await reopen()
    seals = 0
    await catalog.findKey(name)
    const whole = seals
    expect(catalog.peekGrants(name)).toBeUndefined()
    expect(await catalog.findGrants(name)).toHaveLength(12)
    // loading the grants verifies the rows of the key again, and nothing per grant
    expect(seals).toBe(2 * whole)
  })

  it('is in the same frozen list as long as nothing changed, and in another one afterwards', async () => {
    const name = await newName()
    expect(catalog.peekGrants(name)).toEqual([])
    const { grantId } = await catalog.createGrant(grantOn(name), always)
    const list = catalog.peekGrants(name)
    expect(list).toHaveLength(1)
    expect(await catalog.findGrants(name)).toBe(list)
    await catalog.setTags(name, { a: 'b' }, [])
    expect(catalog.peekGrants(name)).toBe(list)
    expect(await catalog.deleteGrant(name, grantId)).toBe(true)
    expect(catalog.peekGrants(name)).toEqual([])
    expect(await catalog.deleteGrant(name, grantId)).toBe(false)
    expect(await catalog.findGrant(name, grantId)).toBeUndefined()
  })

  it('is not made when the review answers another, or refuses', async () => {
    const name = await newName()
    const first = await catalog.createGrant(grantOn(name, { name: 'n' }), always)
    const again = await catalog.createGrant(grantOn(name, { name: 'n' }), (existing) => existing[0])
    expect(again).toEqual(first)
    const refuse = () => {
      throw new Error('enough')
    }
    await expect(catalog.createGrant(grantOn(name), refuse)).rejects.toThrow('enough')
    expect(await catalog.findGrants(name)).toEqual([first])
  })

  it('of concurrent writers is never lost', async () => {
    const name = await newName()
    const made = await Promise.all(Array.from({ length: 20 }, () => catalog.createGrant(grantOn(name), always)))
    await Promise.all(made.slice(0, 5).map(({ grantId }) => catalog.deleteGrant(name, grantId)))
    await reopen()
    const ids = (await catalog.findGrants(name)).map(({ grantId }) => grantId)
    expect(ids).toEqual(
      made
        .slice(5)
        .map(({ grantId }) => grantId)
        .sort(),
    )
  })

  it('goes with its key', async () => {
    const name = await newName()
    await catalog.createGrant(grantOn(name, { retiringPrincipal: retiring }), always)
    await catalog.removeKey(name)
    expect(await catalog.findGrants(name)).toEqual([])
    expect(await catalog.listRetirableGrants(region, retiring, undefined, 10)).toEqual([])
    await expect(catalog.createGrant(grantOn(name), always)).rejects.toMatchObject({ code: 'KeyNotFound' })
  })
})

describe('grants that a principal may retire', () => {
  it('are found over keys and accounts of one Region, in pages that survive deletions', async () => {
    const names: KeyName[] = []
    for (const changes of [{}, { account: '444455556666' }, { region: 'eu-west-1' }]) {
      const key = newKey(changes)
      await enabledKey(catalog, key)
      names.push(nameOf(key))
    }
    const wanted: GrantRecord[] = []
    for (const name of names) {
      for (let count = 0; count < 3; count++) {
        const grant = await catalog.createGrant(grantOn(name, { retiringPrincipal: retiring }), always)
        await catalog.createGrant(grantOn(name), always)
        if (name.region === region) wanted.push(grant)
      }
    }
    const seen: GrantRecord[] = []
    for (;;) {
      const page = await catalog.listRetirableGrants(region, retiring, seen.at(-1), 2)
      seen.push(...page)
      const end = page.at(-1)
      if (!end) break
      await catalog.deleteGrant(end, end.grantId)
    }
    expect(seen.map(({ grantId }) => grantId).sort()).toEqual(wanted.map(({ grantId }) => grantId).sort())
  })

  it('leave out those of a damaged key, which is reported', async () => {
    const [good, bad] = [await newName(), await newName()]
    for (const name of [good, bad]) await catalog.createGrant(grantOn(name, { retiringPrincipal: retiring }), always)
    await reopen()
    await store.run('delete from "grant" where key_id = ?', bad.keyId)
    await store.run(
      `insert into "grant" (account, region, key_id, grant_id, grantee, retiring, issuing_account, operations, created_at, revision)
       values (?, ?, ?, 'f0', ?, ?, ?, '["Decrypt"]', 1, 1)`,
      ...[account, region, bad.keyId, grantee, retiring, account],
    )
    const found = await catalog.listRetirableGrants(region, retiring, undefined, 10)
    expect(found.map(({ keyId }) => keyId)).toEqual([good.keyId])
    expect(reported.map(({ code }) => code)).toContain('IntegrityFailed')
  })
})

describe('somebody who can write the file', () => {
  it.each([
    ['puts a revoked grant back', 'revoked'],
    ['widens a grant', 'update "grant" set operations = \'["Decrypt","CreateGrant"]\''],
    ['gives a grant to himself', 'update "grant" set grantee = \'arn:aws:iam::111122223333:user/mallory\''],
    ['lifts a constraint', 'update "grant" set constraints = null'],
    ['deletes a grant', 'delete from "grant" where grant_id = (select min(grant_id) from "grant")'],
    ['breaks a row', 'update "grant" set operations = \'[\''],
  ])('%s in vain', async (_what, statement) => {
    const name = await newName()
    const constraints = { encryptionContextEquals: { a: 'b' } }
    const revoked = await catalog.createGrant(grantOn(name, { constraints }), always)
    await catalog.createGrant(grantOn(name, { constraints }), always)
    const row = await store.one('select * from "grant" where grant_id = ?', revoked.grantId)
    await catalog.deleteGrant(name, revoked.grantId)
    await catalog.createGrant(grantOn(name, { constraints }), always)
    await reopen()
    if (statement === 'revoked') {
      const columns = Object.keys(row)
      const places = columns.map(() => '?').join(', ')
      await store.run(`insert into "grant" (${columns.join(', ')}) values (${places})`, ...Object.values(row))
    } else await store.run(statement)
    await expect(catalog.findGrants(name)).rejects.toMatchObject({ code: 'IntegrityFailed' })
    await expect(catalog.createGrant(grantOn(name), always)).rejects.toMatchObject({ code: 'IntegrityFailed' })
    // the key itself is sound and says so
    expect(await catalog.findKey(name)).toMatchObject({ key: { state: 'Enabled' } })
  })

  it('cannot make the key forget that it has grants', async () => {
    const name = await newName()
    const { parts } = await store.one('select parts from key')
    await catalog.createGrant(grantOn(name), always)
    await reopen()
    await store.run('update key set parts = ?', parts as string)
    await expect(catalog.findKey(name)).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })
})

describe('two gateways', () => {
  it('see each other’s grants and revocations', async () => {
    const name = await newName()
    await catalog[Symbol.asyncDispose]()
    const openShared = async () => {
      const opened = await openCatalog({ ...store.options, pollMs: 5 })
      opened.useSeal(softwareSeal())
      return opened
    }
    catalog = await openShared()
    const other = await openShared()
    try {
      const { grantId } = await catalog.createGrant(grantOn(name), always)
      expect((await other.findGrants(name)).map((grant) => grant.grantId)).toEqual([grantId])
      expect(other.peekGrants(name)).toHaveLength(1)
      await other.deleteGrant(name, grantId)
      expect(catalog.peekGrants(name) ?? []).toEqual([])
      expect(await catalog.findGrants(name)).toEqual([])
    } finally {
      await other[Symbol.asyncDispose]()
    }
  })
})

describe('a set of grants', () => {
  it('has a digest that depends on what it holds and not on how it came about', () => {
    const record = (grantId: string) => ({ grantId }) as GrantRecord
    const digestOf = (grantId: string) => Buffer.alloc(32, grantId)
    const ids = fc.uniqueArray(
      fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 64, maxLength: 64 }),
      { maxLength: 12 },
    )
    fc.assert(
      fc.property(ids, ids, (kept, removed) => {
        const only = kept.filter((id) => !removed.includes(id))
        const direct = only.reduce((set, id) => addGrant(set, record(id), digestOf(id)), noGrants)
        const both = [...removed, ...only].reduce((set, id) => addGrant(set, record(id), digestOf(id)), noGrants)
        const roundabout = removed.reduce(removeGrant, both)
        expect(roundabout.digest).toBe(direct.digest)
        expect(roundabout.grants.map(({ grantId }) => grantId)).toEqual([...only].sort())
        for (const id of removed) expect(findById(roundabout.grants, id)).toBeUndefined()
        for (const id of only) expect(findById(roundabout.grants, id)?.grantId).toBe(id)
        if (removed.length > 0 && only.length > 0) expect(both.digest).not.toBe(direct.digest)
      }),
    )
  })
})
