/**
 * Pages while the list changes: whatever is in a list from the first page to the last is shown exactly once, whatever else comes and goes between
 * the pages.
 */
import type { KMS } from '@aws-sdk/client-kms'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { makeKey, openKms, refusalOf } from '../../support/kms-sdk.ts'

let gateway: TestGateway
let kms: KMS

beforeAll(async () => {
  gateway = await startGateway()
  kms = openKms(gateway)
  await gateway.createUser('retirer')
}, 60_000)

afterAll(async () => {
  kms?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const patience = { timeout: 120_000 }
const retirer = `arn:aws:iam::${testAccount}:user/retirer`

interface Page {
  readonly items: readonly string[]
  readonly truncated: boolean | undefined
  readonly marker: string | undefined
}

/** A list that a test fills and empties; `add` answers the name under which the item is listed. */
interface List {
  add(name: string): Promise<string>
  remove(item: string): Promise<unknown>
  page(limit: number, marker: string | undefined): Promise<Page>
}

const lists: Readonly<Record<string, () => Promise<List>>> = {
  async ListAliases() {
    const { id: KeyId } = await makeKey(kms)
    return {
      async add(name) {
        const AliasName = `alias/${KeyId}/${name}`
        await kms.createAlias({ AliasName, TargetKeyId: KeyId })
        return AliasName
      },
      remove: (AliasName) => kms.deleteAlias({ AliasName }),
      async page(Limit, Marker) {
        const { Aliases, Truncated, NextMarker } = await kms.listAliases({ KeyId, Limit, Marker })
        return { items: Aliases!.map(({ AliasName }) => AliasName!), truncated: Truncated, marker: NextMarker }
      },
    }
  },
  async ListResourceTags() {
    const { id: KeyId } = await makeKey(kms)
    return {
      async add(TagKey) {
        await kms.tagResource({ KeyId, Tags: [{ TagKey, TagValue: '' }] })
        return TagKey
      },
      remove: (TagKey) => kms.untagResource({ KeyId, TagKeys: [TagKey] }),
      async page(Limit, Marker) {
        const { Tags, Truncated, NextMarker } = await kms.listResourceTags({ KeyId, Limit, Marker })
        return { items: Tags!.map(({ TagKey }) => TagKey!), truncated: Truncated, marker: NextMarker }
      },
    }
  },
  async ListGrants() {
    const { id: KeyId } = await makeKey(kms)
    return {
      async add() {
        const grant = { KeyId, GranteePrincipal: retirer, Operations: ['Encrypt' as const] }
        return (await kms.createGrant(grant)).GrantId!
      },
      remove: (GrantId) => kms.revokeGrant({ KeyId, GrantId }),
      async page(Limit, Marker) {
        const { Grants, Truncated, NextMarker } = await kms.listGrants({ KeyId, Limit, Marker })
        return { items: Grants!.map(({ GrantId }) => GrantId!), truncated: Truncated, marker: NextMarker }
      },
    }
  },
  async ListRetirableGrants() {
    const keys = [(await makeKey(kms)).arn, (await makeKey(kms)).arn]
    const name = `arn:aws:iam::${testAccount}:user/retirer-${keys[0]!.slice(-12)}`
    await gateway.createUser(name.split('/')[1]!)
    return {
      async add(each) {
        const KeyId = keys[each.length % 2]!
        const grant = { KeyId, GranteePrincipal: retirer, RetiringPrincipal: name, Operations: ['Encrypt' as const] }
        return `${KeyId} ${(await kms.createGrant(grant)).GrantId}`
      },
      remove: (item) => {
        const [KeyId, GrantId] = item.split(' ')
        return kms.retireGrant({ KeyId, GrantId })
      },
      async page(Limit, Marker) {
        const { Grants, Truncated, NextMarker } = await kms.listRetirableGrants({
          RetiringPrincipal: name,
          Limit,
          Marker,
        })
        const items = Grants!.map(({ KeyId, GrantId }) => `${KeyId} ${GrantId}`)
        return { items, truncated: Truncated, marker: NextMarker }
      },
    }
  },
}

/** What happens before each page: names that come, and how many of those that are there go. */
const change = fc.record({ come: fc.integer({ min: 0, max: 2 }), go: fc.array(fc.nat(30), { maxLength: 2 }) })

describe.each(Object.entries(lists))('%s', (_name, make) => {
  it('shows what stays exactly once, whatever comes and goes between the pages', patience, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 3 }),
        fc.array(change, { minLength: 1, maxLength: 6 }),
        async (initial, limit, changes) => {
          const list = await make()
          let made = 0
          // Names that sort before and after one another in no order of time.
          const add = () => list.add(`${((made * 7) % 10).toString(36)}-${'x'.repeat(made++ % 3)}${made}`)
          const stay = new Set<string>()
          for (let i = 0; i < initial; i++) stay.add(await add())
          const seen: string[] = []
          let at = 0
          let page = await list.page(limit, undefined)
          for (;;) {
            seen.push(...page.items)
            expect(page.items.length).toBeLessThanOrEqual(limit)
            expect(page.truncated).toBe(page.marker !== undefined)
            if (page.marker === undefined) break
            const { come, go } = changes[at++] ?? { come: 0, go: [] }
            for (let i = 0; i < come; i++) await add()
            for (const nth of go) {
              const item = [...stay][nth]
              if (item === undefined) continue
              stay.delete(item)
              await list.remove(item)
            }
            page = await list.page(limit, page.marker)
          }
          expect(new Set(seen).size).toBe(seen.length)
          for (const item of stay) expect(seen).toContain(item)
        },
      ),
      { numRuns: 12 },
    )
  })

  it('refuses markers that it did not give', async () => {
    const list = await make()
    for (const name of ['a', 'bb', 'ccc']) await list.add(name)
    const { marker } = await list.page(1, undefined)
    for (const foreign of ['x', `${marker}A`, Buffer.from('["v1","ListKeys","x"]').toString('base64url')]) {
      expect(await refusalOf(list.page(1, foreign))).toMatchObject({ name: 'InvalidMarkerException' })
    }
  })
})

describe('ListKeys', () => {
  it(
    'shows every key that was there exactly once while others are made and scheduled for deletion',
    patience,
    async () => {
      const before = new Set<string>()
      for (let i = 0; i < 4; i++) before.add((await makeKey(kms)).id)
      const seen: string[] = []
      let Marker: string | undefined
      do {
        const { Keys, NextMarker } = await kms.listKeys({ Limit: 3, Marker })
        seen.push(...Keys!.map(({ KeyId }) => KeyId!))
        Marker = NextMarker
        if (seen.length < 20) await kms.scheduleKeyDeletion({ KeyId: (await makeKey(kms)).id })
      } while (Marker !== undefined)
      expect(new Set(seen).size).toBe(seen.length)
      for (const KeyId of before) expect(seen).toContain(KeyId)
    },
  )
})

describe('ListKeyRotations', () => {
  it('shows every rotation exactly once while the key rotates on', patience, async () => {
    const { id: KeyId } = await makeKey(kms)
    for (let i = 0; i < 3; i++) await kms.rotateKeyOnDemand({ KeyId })
    const before = (await kms.listKeyRotations({ KeyId })).Rotations!.map(({ KeyMaterialId }) => KeyMaterialId)
    const seen: (string | undefined)[] = []
    let Marker: string | undefined
    do {
      const { Rotations, NextMarker } = await kms.listKeyRotations({ KeyId, Limit: 1, Marker })
      seen.push(...Rotations!.map(({ KeyMaterialId }) => KeyMaterialId))
      Marker = NextMarker
      if (seen.length < 4) await kms.rotateKeyOnDemand({ KeyId })
    } while (Marker !== undefined)
    expect(new Set(seen).size).toBe(seen.length)
    expect(seen.slice(0, 3)).toEqual(before)
  })
})
