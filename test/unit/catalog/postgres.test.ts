/** The tests of the catalog once more, on a PostgreSQL server. */
import { afterAll, describe } from 'vitest'
import { useServer } from '../../support/catalog-store.ts'
import { startPostgres } from '../../support/postgres.ts'

const server = await startPostgres()
useServer(server)
afterAll(() => server[Symbol.asyncDispose]())

// each in a suite of its own, for its hooks
describe('on PostgreSQL', () => {
  describe('bindings', async () => {
    await import('./bindings.test.ts')
  })
  describe('custom key stores', async () => {
    await import('./custom-key-stores.test.ts')
  })
  describe('documents', async () => {
    await import('./documents.test.ts')
  })
  describe('grants', async () => {
    await import('./grants.test.ts')
  })
  describe('identities', async () => {
    await import('./identities.test.ts')
  })
  describe('key revisions', async () => {
    await import('./key-revisions.test.ts')
  })
  describe('keys', async () => {
    await import('./keys.test.ts')
  })
  describe('related keys', async () => {
    await import('./related-keys.test.ts')
  })
  describe('sharing', async () => {
    await import('./sharing.test.ts')
  })
})
