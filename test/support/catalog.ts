/** Catalogs in files of their own, sealed by an HMAC of node:crypto: what the tests of the catalog and of its users need. */
import { createHmac, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Catalog, KeyEntry, KeyName, NewKey, RowSeal } from '../../src/catalog/catalog.ts'

export const account = '111122223333'
export const region = 'us-east-1'

/** A folder that is removed with `Symbol.dispose`. */
export function temporaryFolder(): { readonly path: string } & Disposable {
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-catalog-'))
  return { path: folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) }
}

export function softwareSeal(secret = 'catalog test key'): RowSeal {
  return { compute: async (bytes) => createHmac('sha256', secret).update(bytes).digest() }
}

export function newKey(changes: Partial<NewKey['key']> = {}, more: Partial<Omit<NewKey, 'key'>> = {}): NewKey {
  return {
    key: {
      account,
      region,
      keyId: randomUUID(),
      spec: 'ECC_NIST_P256',
      usage: 'SIGN_VERIFY',
      origin: 'AWS_KMS',
      purpose: 'kms',
      group: 'main',
      custody: 'token',
      state: 'Creating',
      description: 'für Prüfungen',
      multiRegion: false,
      createdAt: 1_790_000_000_000,
      deletionAt: null,
      currentMaterial: 0,
      adopted: false,
      extra: {},
      ...changes,
    },
    material: {
      number: 1,
      state: 'Creating',
      objectId: randomBytes(16),
      label: null,
      construction: 'none',
      materialId: Buffer.alloc(0),
      publicKey: Buffer.alloc(0),
      wrapped: Buffer.alloc(0),
      createdAt: 1_790_000_000_000,
    },
    policy: '{"Version":"2012-10-17","Statement":[]}',
    tags: {},
    ...more,
  }
}

/** A key whose first material is finished. */
export async function enabledKey(catalog: Catalog, key: NewKey = newKey()): Promise<KeyEntry> {
  await catalog.beginKey(key)
  return await catalog.finishMaterial(nameOf(key), 1, {
    materialId: randomBytes(32),
    publicKey: randomBytes(91),
    construction: 'none',
    state: 'Enabled',
  })
}

export function nameOf({ key }: { readonly key: KeyName }): KeyName {
  return { account: key.account, region: key.region, keyId: key.keyId }
}
