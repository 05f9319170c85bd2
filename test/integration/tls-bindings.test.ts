/** Bindings: a token for a key, in a file and nowhere else, in force until it is revoked and no longer. */
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { CreateKeyCommand, DescribeKeyCommand, ScheduleKeyDeletionCommand } from '@aws-sdk/client-kms'
import Sqlite from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { decodeReferencePem, type KeyReference, keyIdOf } from '../../src/tls-reference.ts'
import { errorNumbers } from '../../src/transport/offload/frames.ts'
import { startGateway, type TestGateway, testAccount } from '../support/gateway.ts'
import { createGatewayCli, type GatewayCli } from '../support/gateway-cli.ts'
import { certificateVerify, connectHks, type HksAnswer } from '../support/hks-client.ts'

let gateway: TestGateway
let cli: GatewayCli
let folder: string
beforeAll(async () => {
  gateway = await startGateway()
  cli = await createGatewayCli(gateway)
  folder = path.join(gateway.token.directory, 'references')
  await mkdir(folder)
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const ownUid = String(process.getuid?.())
let count = 0

interface Site {
  readonly name: string
  readonly keyId: string
  readonly file: string
  readonly reference: KeyReference
}

/** A key of its own with a binding of its own, which the user of the test may use unless told. */
async function makeSite(...words: string[]): Promise<Site> {
  const name = `site-${++count}`
  const { keyId } = await cli.json<{ keyId: string }>(
    ...['tls', 'create-key', '--spec', 'ECC_NIST_P256', '--alias', name],
  )
  const file = path.join(folder, `${name}.pem`)
  const chosen = words.length === 0 ? ['--user', ownUid] : words
  const bound = await cli.run('tls', 'bind', '--name', name, '--key', name, ...chosen, '--out', file)
  expect(bound).toMatchObject({ code: 0, err: '' })
  return { name, keyId, file, reference: decodeReferencePem(await readFile(file, 'utf8')) }
}

async function sign({ publicKey, token }: KeyReference): Promise<HksAnswer> {
  const socket = gateway.gateway.endpoints.offload[0] as string
  await using client = await connectHks(socket, { tokens: [token as Buffer] })
  return await client.sign({ keyId: keyIdOf(publicKey), input: certificateVerify('server', randomBytes(32)) })
}

const signs = async ({ reference }: Site): Promise<boolean> => (await sign(reference)).ok
const unauthenticated = { ok: false, code: errorNumbers.unauthenticated }

describe('hsmgate tls bind', () => {
  it('writes a reference that signs, for its owner alone to read', async () => {
    const site = await makeSite()
    expect((await stat(site.file)).mode & 0o777).toBe(0o600)
    expect(site.reference.token).toHaveLength(32)
    expect(site.reference.comment).toBe(`hsmgate tls binding ${site.name}`)
    expect(await signs(site)).toBe(true)
    expect(await readdir(folder)).toContain(`${site.name}.pem`)
    expect((await readdir(folder)).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('shows the token nowhere: not on the terminal, in the journal, the list or the catalog', async () => {
    const name = 'silent'
    const { keyId } = await cli.json<{ keyId: string }>('tls', 'create-key', '--spec', 'ECC_NIST_P256')
    const file = path.join(folder, 'silent.pem')
    const words = ['tls', 'bind', '--name', name, '--key', keyId, '--user', ownUid, '--out', file]
    const text = await cli.run(...words)
    const json = await cli.run('--json', ...words.with(3, 'silent2').with(-1, `${file}2`))
    const list = await cli.run('--json', 'tls', 'list')
    const shown = await cli.run('tls', 'show', file)
    const journal = JSON.stringify(await gateway.auditRecords())
    const catalog = await readFile(path.join(gateway.directory, 'catalog.sqlite'))
    const log = await readFile(path.join(gateway.directory, 'catalog.sqlite-wal')).catch(() => Buffer.alloc(0))
    for (const each of [file, `${file}2`]) {
      const { token } = decodeReferencePem(await readFile(each, 'utf8'))
      for (const form of [
        token!.toString('base64').slice(0, 40),
        token!.toString('hex'),
        token!.toString('base64url'),
      ]) {
        for (const output of [text.out, text.err, json.out, json.err, list.out, shown.out, journal]) {
          expect(output).not.toContain(form)
        }
      }
      expect(catalog.includes(token!) || log.includes(token!)).toBe(false)
    }
    expect(shown.out).toMatch(/^token +there is one, SHA-256 [0-9a-f]{64}$/m)
    const record = (await gateway.auditRecords()).find(({ event }) => event.eventName === 'TlsBind')!
    expect(record.event).toMatchObject({
      requestParameters: { users: expect.anything(), policies: 'tls13-server,tls12-server-ecdhe' },
      responseElements: { principal: expect.stringMatching(/:user\/hsmgate\/tls\//), tokenDigest: expect.anything() },
    })
  })

  it('takes the two server policies, no relay and no limit unless told', async () => {
    const site = await makeSite()
    const { bindings } = await cli.json<{ bindings: { name: string }[] }>('tls', 'list')
    expect(bindings.find(({ name }) => name === site.name)).toEqual({
      name: site.name,
      principal: `arn:aws:iam::${testAccount}:user/hsmgate/tls/${site.name}`,
      key: `arn:aws:kms:us-east-1:${testAccount}:key/${site.keyId}`,
      spkiDigest: keyIdOf(site.reference.publicKey).toString('hex'),
      tokenDigest: keyIdOf(site.reference.token!).toString('hex'),
      policies: ['tls13-server', 'tls12-server-ecdhe'],
      users: [Number(ownUid)],
      relays: [],
      ratePerSecond: null,
      concurrency: null,
      createdAt: expect.any(Number),
    })
  })

  it('takes users by name, limits, an endpoint and any user only when told', async () => {
    const site = await makeSite('--user', 'www-data,1000', '--rate', '500', '--concurrency', '16', '--endpoint', 'near')
    expect(site.reference.endpoint).toBe('near')
    const { out } = await cli.run('tls', 'list')
    expect(out).toMatch(new RegExp(`^${site.name} .* 33,1000 +- +500 +16 `, 'm'))
    expect(await sign(site.reference)).toMatchObject(unauthenticated)
    expect(await signs(await makeSite('--any-user'))).toBe(true)
  })

  it.each([
    [[], /names at least one user, or a relay/],
    [['--any-user', '--user', '1'], /not both/],
    [['--user', 'nobody-of-that-name'], /there is no user nobody-of-that-name/],
    [['--user', '-u'], /is no name of a user/],
    [['--user', '4294967295'], /is the number of a uid/],
    [['--user', '1', '--policy', 'tls14'], /tls14 is no policy/],
    [['--user', '1', '--relay', 'nowhere'], /A relay is one that hsmgate tls relay list shows/],
    [['--user', '1', '--rate', '0'], /The rate is a whole number from 1/],
    [['--user', '1', '--rate', 'many'], /many is no number/],
    [['--user', '1', '--concurrency', '5000'], /The concurrency is a whole number/],
    [['--user', '1', '--endpoint', 'e'.repeat(65)], /endpoint has 1 to 64 bytes/],
  ])('with %j makes neither a binding nor a file', async (words, text) => {
    const { keyId } = await makeSite()
    const name = `refused-${++count}`
    const file = path.join(folder, `${name}.pem`)
    const { code, err } = await cli.run('tls', 'bind', '--name', name, '--key', keyId, ...words, '--out', file)
    expect(code).toBe(1)
    expect(err).toMatch(text)
    expect(await readdir(folder)).not.toContain(`${name}.pem`)
    expect((await cli.run('tls', 'list')).out).not.toContain(name)
  })

  it('refuses a name that is taken, a key of another purpose, and a file that is there', async () => {
    const site = await makeSite()
    const bind = (name: string, key: string, out: string, ...more: string[]) =>
      cli.run('tls', 'bind', '--name', name, '--key', key, '--user', '1', '--out', out, ...more)
    const other = path.join(folder, 'other.pem')
    expect((await bind(site.name, site.keyId, other)).err).toMatch(/A binding with the name .* exists/)
    expect((await bind('a/b', site.keyId, other)).err).toMatch(/A name has 1 to 64/)
    const made = await gateway
      .client()
      .send(new CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }))
    expect((await bind('kms', made.KeyMetadata?.KeyId as string, other)).err).toMatch(/is of purpose kms/)
    expect((await bind('none', 'absent', other)).err).toMatch(/alias\/absent is not found/)
    const before = await readFile(site.file, 'utf8')
    expect((await bind('second', site.keyId, site.file)).err).toMatch(/is there already/)
    expect(await readFile(site.file, 'utf8')).toBe(before)
    expect((await cli.run('tls', 'list')).out).not.toMatch(/^second /m)
    expect(await bind('second', site.keyId, site.file, '--force')).toMatchObject({ code: 0 })
    expect(await readFile(site.file, 'utf8')).not.toBe(before)
  })

  it('takes the token back when the file cannot be written', async () => {
    const site = await makeSite()
    const missing = path.join(folder, 'no', 'such', 'folder.pem')
    const { code, err } = await cli.run(
      ...['tls', 'bind', '--name', 'lost', '--key', site.keyId, '--user', '1', '--out', missing],
    )
    expect(code).toBe(1)
    expect(err).toMatch(/cannot be written \(ENOENT\)/)
    expect((await cli.run('tls', 'list')).out).not.toMatch(/^lost /m)
  })
})

describe('hsmgate tls show', () => {
  it('says what a reference is, also where certificates stand beside it', async () => {
    const site = await makeSite()
    const chain = path.join(folder, 'chain.pem')
    const { certificate } = await cli.json<{ certificate: string }>(
      ...['tls', 'self-signed', '--key', site.name, '--san', 'a.example'],
    )
    await writeFile(chain, certificate + (await readFile(site.file, 'utf8')))
    const { out } = await cli.run('tls', 'show', chain)
    expect(out).toMatch(/^key +ec prime256v1$/m)
    expect(out).toContain(keyIdOf(site.reference.publicKey).toString('hex'))
    expect(out).toMatch(new RegExp(`^comment +hsmgate tls binding ${site.name}$`, 'm'))
  })

  it('says what is wrong with a file that is none', async () => {
    const file = path.join(folder, 'none.pem')
    await writeFile(file, 'nothing')
    expect(await cli.run('tls', 'show', file)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/is no key reference: there is no HSMGATE KEY REFERENCE in it/),
    })
    expect((await cli.run('tls', 'show', path.join(folder, 'absent.pem'))).err).toMatch(/cannot be read \(ENOENT\)/)
    await writeFile(file, Buffer.alloc(1024 * 1024 + 1))
    expect((await cli.run('tls', 'show', file)).err).toMatch(/longer than a megabyte/)
  })
})

describe('a binding', () => {
  it('signs for its users and nobody else', async () => {
    const site = await makeSite('--user', '4000')
    expect(await sign(site.reference)).toMatchObject(unauthenticated)
    expect(await signs(await makeSite('--user', `4000,${ownUid}`))).toBe(true)
  })

  it('ends with its revocation, at once and after a restart; its neighbours go on', async () => {
    const [kept, revoked] = [await makeSite(), await makeSite()]
    const second = path.join(folder, 'second-token.pem')
    const bind = ['tls', 'bind', '--name', `${kept.name}-b`, '--key', kept.name, '--user', ownUid, '--out', second]
    expect(await cli.run(...bind)).toMatchObject({ code: 0 })
    const other = decodeReferencePem(await readFile(second, 'utf8'))
    expect((await sign(other)).ok).toBe(true)
    expect(await cli.run('tls', 'revoke', revoked.name)).toMatchObject({ code: 0, out: `${revoked.name} is revoked\n` })
    expect(await sign(revoked.reference)).toMatchObject(unauthenticated)
    expect(await cli.run('tls', 'revoke', `${kept.name}-b`)).toMatchObject({ code: 0 })
    expect(await sign(other)).toMatchObject(unauthenticated)
    expect(await signs(kept)).toBe(true)
    expect((await cli.run('tls', 'revoke', revoked.name)).err).toMatch(/There is no binding/)

    await gateway.restart()
    expect(await sign(revoked.reference)).toMatchObject(unauthenticated)
    expect(await sign(other)).toMatchObject(unauthenticated)
    expect(await signs(kept)).toBe(true)
    // the name is free again, and the old token stays worthless
    const again = ['tls', 'bind', '--name', revoked.name, '--key', revoked.name, '--user', ownUid]
    expect(await cli.run(...again, '--out', revoked.file, '--force')).toMatchObject({ code: 0 })
    expect(await sign(revoked.reference)).toMatchObject(unauthenticated)
    expect((await sign(decodeReferencePem(await readFile(revoked.file, 'utf8')))).ok).toBe(true)
  })

  it('signs no more when its key waits for its deletion', async () => {
    const site = await makeSite()
    await gateway.client().send(new ScheduleKeyDeletionCommand({ KeyId: site.keyId, PendingWindowInDays: 7 }))
    const { KeyMetadata } = await gateway.client().send(new DescribeKeyCommand({ KeyId: site.keyId }))
    expect(KeyMetadata?.KeyState).toBe('PendingDeletion')
    expect((await sign(site.reference)).ok).toBe(false)
    const late = [
      'tls',
      'bind',
      '--name',
      'late',
      '--key',
      site.keyId,
      '--user',
      '1',
      '--out',
      path.join(folder, 'late'),
    ]
    expect((await cli.run(...late)).err).toMatch(/is pending deletion/)
  })
})

describe('whoever can write the catalog', () => {
  const behindItsBack = (statement: string, ...values: Sqlite.Value[]) => {
    const other = new Sqlite(path.join(gateway.directory, 'catalog.sqlite'))
    try {
      const prepared = other.prepare(statement)
      return prepared.reader ? prepared.all(values) : [prepared.run(values)]
    } finally {
      other.close()
    }
  }

  it('gains nothing by putting a revoked binding back', async () => {
    const [site, neighbour] = [await makeSite(), await makeSite()]
    const [row] = behindItsBack('SELECT * FROM tls_binding WHERE name = ?', site.name) as Record<string, Sqlite.Value>[]
    await cli.run('tls', 'revoke', site.name)
    const names = Object.keys(row!).map((name) => `"${name}"`)
    behindItsBack(`INSERT INTO tls_binding (${names}) VALUES (${names.map(() => '?')})`, ...Object.values(row!))
    await gateway.restart()
    expect(await sign(site.reference)).toMatchObject(unauthenticated)
    expect(await signs(neighbour)).toBe(true)
    expect((await cli.run('tls', 'list')).out).not.toContain(`${site.name} `)
    expect((await cli.run('tls', 'revoke', site.name)).err).toMatch(/was changed from outside/)
  })

  it('gains nothing by widening a binding or by pointing it at another key', async () => {
    const [narrow, moved, target] = [await makeSite('--user', '4000'), await makeSite(), await makeSite()]
    behindItsBack(`UPDATE tls_binding SET users = '"any"' WHERE name = ?`, narrow.name)
    behindItsBack('UPDATE tls_binding SET key_id = ? WHERE name = ?', target.keyId, moved.name)
    await gateway.restart()
    expect(await sign(narrow.reference)).toMatchObject(unauthenticated)
    expect(await sign(moved.reference)).toMatchObject(unauthenticated)
    // a key whose bindings were changed has none: what was there can't be told from what was put there
    expect(await sign(target.reference)).toMatchObject(unauthenticated)
  })

  it('does not keep a binding in force by damaging it before it is revoked', async () => {
    const site = await makeSite()
    behindItsBack('UPDATE tls_binding SET rate_per_second = 1 WHERE name = ?', site.name)
    expect(await signs(site)).toBe(true)
    expect((await cli.run('tls', 'revoke', site.name)).code).toBe(1)
    expect(await sign(site.reference)).toMatchObject(unauthenticated)
  })
})
