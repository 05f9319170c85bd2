/** The administrator of a development gateway, on a real catalog; each test has an account of its own. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ensureAdministrator } from '../../src/cli/administrator.ts'
import { findCredentials } from '../../src/cli/credentials-file.ts'
import type { Gateway } from '../../src/gateway.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'

const accounts = Array.from({ length: 12 }, (_, index) => String(100_000_000_000 + index))
let fixture: TestGateway
let folder: string
let credentialsFile: string
let account: string
let administration: Gateway['administration']

beforeAll(async () => {
  fixture = await startGateway({ config: { accounts: ['000000000000', ...accounts] } })
  administration = fixture.gateway.administration
})

afterAll(async () => {
  await fixture[Symbol.asyncDispose]()
})

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-administrator-'))
  credentialsFile = path.join(folder, 'credentials')
  account = accounts.pop()!
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const now = () => Date.UTC(2026, 0, 2, 3, 4, 5)
const ensure = (regions = ['us-east-1']) =>
  ensureAdministrator({ administration, account, regions, credentialsFile, now })
const accessKeys = async () => (await administration.listAccessKeys(account)).map(({ accessKeyId }) => accessKeyId)

describe('ensureAdministrator', () => {
  it('makes user, policy and access key, and writes them down', async () => {
    const { credentials, notes } = await ensure()
    expect(notes).toEqual([])
    expect(await findCredentials(credentialsFile)).toEqual(credentials)
    expect(await accessKeys()).toEqual([credentials?.accessKeyId])
    const [policy] = await administration.getPolicies(account, 'administrator')
    expect(JSON.parse(policy!.document).Statement).toMatchObject([{ Effect: 'Allow', Action: '*', Resource: '*' }])
  })

  it('does nothing the second time', async () => {
    const first = await ensure()
    expect(await ensure()).toEqual(first)
    expect(await accessKeys()).toHaveLength(1)
  })

  it('completes a user that a start left without a policy', async () => {
    await administration.createUser(account, 'administrator')
    await ensure()
    expect(await administration.getPolicies(account, 'administrator')).toHaveLength(1)
  })

  it('leaves policies alone that an operator gave the administrator', async () => {
    await ensure()
    await administration.deletePolicy(account, 'administrator', 'administrator')
    const document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:List*","Resource":"*"}]}'
    await administration.putPolicy(account, 'administrator', 'less', document)
    await rm(credentialsFile)
    await ensure()
    expect(await administration.getPolicies(account, 'administrator')).toEqual([{ name: 'less', document }])
  })

  it('keeps an unknown file and one without a complete profile under another name', async () => {
    await writeFile(
      credentialsFile,
      '[default]\naws_access_key_id = AKIAX\naws_secret_access_key = x\nregion = us-east-1\n',
    )
    const unknown = await ensure()
    expect(unknown.notes).toEqual([
      `${credentialsFile}: the gateway no longer knows access key AKIAX (another catalog, or deleted)`,
      `the old file is kept as ${credentialsFile}.20260102T030405000Z; a new access key of administrator takes its place`,
    ])
    expect(await readFile(`${credentialsFile}.20260102T030405000Z`, 'utf8')).toContain('AKIAX')
    expect(await findCredentials(credentialsFile)).toEqual(unknown.credentials)
  })

  it('does not lose a file that it cannot read as credentials', async () => {
    await writeFile(credentialsFile, 'mine')
    expect((await ensure()).credentials).toBeDefined()
    expect((await readdir(folder)).sort()).toEqual(['credentials', 'credentials.20260102T030405000Z'])
  })

  it('says which access keys are in the way when the user has as many as he may', async () => {
    await ensure()
    await rm(credentialsFile)
    await ensure()
    await rm(credentialsFile)
    const { credentials, notes } = await ensure()
    expect(credentials).toBeUndefined()
    for (const accessKeyId of await accessKeys()) expect(notes[0]).toContain(accessKeyId)
    expect(await readdir(folder)).toEqual([])
  })

  it('does not let a disabled user or access key in again', async () => {
    const { credentials } = await ensure()
    await administration.setAccessKeyActive(credentials!.accessKeyId, false)
    expect(await ensure()).toEqual({
      notes: [
        `${credentialsFile}: its access key is disabled; hsmgate principal key enable ${credentials!.accessKeyId}`,
      ],
    })
    await administration.setUserEnabled(account, 'administrator', false)
    expect((await ensure()).notes[0]).toContain('user administrator is disabled')
    await rm(credentialsFile)
    expect((await ensure()).notes[0]).toContain('user administrator is disabled')
    expect(await accessKeys()).toHaveLength(1)
  })

  it('says so when the file names a Region that is no longer served', async () => {
    await ensure()
    expect(await ensure(['eu-west-1', 'eu-west-2'])).toEqual({
      notes: [`${credentialsFile}: the gateway does not serve Region us-east-1; name eu-west-1 or eu-west-2 in it`],
    })
  })
})
