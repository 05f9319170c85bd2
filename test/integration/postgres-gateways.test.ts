/**
 * Two gateways on one PostgreSQL catalog and one token: what one does holds on the other when it answers, one that is killed is replaced, and a database
 * that is away stops both without a wrong answer.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  EncryptCommand,
  GenerateRandomCommand,
  KMSClient,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { askSocket } from '../../src/cli/operator-client.ts'
import { parseConfig } from '../../src/config/load.ts'
import { type Gateway, openGateway } from '../../src/gateway.ts'
import { ProblemsError } from '../../src/problem.ts'
import { errorNumbers } from '../../src/transport/offload/frames.ts'
import { type TestCredentials, testRegion } from '../support/gateway.ts'
import { certificateVerify, connectHks } from '../support/hks-client.ts'
import { createMovingClock, dayMs } from '../support/moving-clock.ts'
import { type BoundKey, bindKey, createTlsKey } from '../support/offload.ts'
import { gatewayPassword, type PostgresServer, startPostgres } from '../support/postgres.ts'
import { type ServedGateway, serveGateway } from '../support/served-gateway.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'
import { listObjectIds } from '../support/token-objects.ts'

const plaintext = Buffer.from('attack at dawn')
const clock = createMovingClock()
const lines: string[] = []
let server: PostgresServer
let token: TestToken
/** A process, to be killed. */
let first: ServedGateway
/** In this process, with a clock of its own. */
let second: Gateway
let clients: { readonly a: KMSClient; readonly b: KMSClient }

const catalogOn = (database: string) => ({ kind: 'postgresql', postgresql: server.address(database) })

function configOf(folder: string, { module, label, pinFile, env }: TestToken, changes: object = {}) {
  const document = {
    development: true,
    tokens: { softhsm: { module, label, pinFile, profile: 'softhsm', env } },
    listen: { kms: { address: '127.0.0.1', port: 0 }, operator: { http: null } },
    log: { level: 'warn' },
    catalog: catalogOn('gates'),
    ...changes,
  }
  return parseConfig(JSON.stringify(document), path.join(token.directory, folder, 'config.json'))
}

const clientOf = (endpoint: string, credentials: TestCredentials) =>
  new KMSClient({ endpoint, region: testRegion, credentials, maxAttempts: 1 })

const ask = <T>(noun: string, verb: string, question = {}) =>
  askSocket<T>(second.endpoints.operatorSocket, noun, verb, question)

async function makeKey(kms: KMSClient): Promise<string> {
  return (await kms.send(new CreateKeyCommand({}))).KeyMetadata?.KeyId as string
}

const encrypt = async (kms: KMSClient, KeyId: string) =>
  (await kms.send(new EncryptCommand({ KeyId, Plaintext: plaintext }))).CiphertextBlob as Uint8Array

async function decrypt(kms: KMSClient, CiphertextBlob: Uint8Array): Promise<string> {
  return Buffer.from((await kms.send(new DecryptCommand({ CiphertextBlob }))).Plaintext ?? []).toString()
}

const nameOfFailure = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'none',
    (error: Error) => error.name,
  )

const leaseOf = async (name: string) =>
  (await server.query('gates', 'select holder, fence from lease where name = ?', [name])).rows[0] as {
    readonly holder: string
    readonly fence: number
  }

beforeAll(async () => {
  ;[server, token] = await Promise.all([startPostgres(), createTestToken()])
  await server.createDatabase('gates')
  const aside = { ...token, directory: path.join(token.directory, 'first') }
  const log = { write: (line: string) => void lines.push(line) }
  // both at once, on an empty catalog
  ;[first, second] = await Promise.all([
    serveGateway(aside, { config: { catalog: catalogOn('gates'), log: { level: 'warn' } } }),
    openGateway(configOf('second', token), { clock, log }),
  ])
  clients = {
    a: clientOf(first.endpoint, first.credentials),
    b: clientOf(second.endpoints.kms as string, first.credentials),
  }
}, 60_000)

afterAll(async () => {
  clients?.a.destroy()
  clients?.b.destroy()
  await second?.[Symbol.asyncDispose]()
  await first?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

describe('two gateways on one catalog', () => {
  it('share keys and aliases: what one makes the other uses at once', async () => {
    const { a, b } = clients
    const keyId = await makeKey(a)
    await a.send(new CreateAliasCommand({ AliasName: 'alias/shared', TargetKeyId: keyId }))
    expect(await decrypt(a, await encrypt(b, 'alias/shared'))).toBe('attack at dawn')
    expect(await decrypt(b, await encrypt(a, keyId))).toBe('attack at dawn')
  })

  it('refuse a key from the moment that the other answers that it is disabled', async () => {
    const { a, b } = clients
    const keyId = await makeKey(a)
    await encrypt(b, keyId)
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      await one.send(new DisableKeyCommand({ KeyId: keyId }))
      expect(await nameOfFailure(encrypt(other, keyId))).toBe('DisabledException')
      await one.send(new EnableKeyCommand({ KeyId: keyId }))
      await encrypt(other, keyId)
    }
  })

  it('that stood still refuses, too, what was disabled meanwhile', async () => {
    const { a, b } = clients
    const keyId = await makeKey(b)
    await encrypt(a, keyId)
    first.kill('SIGSTOP')
    // answered when the first one may no longer use what it knew
    await b.send(new DisableKeyCommand({ KeyId: keyId }))
    const asked = nameOfFailure(encrypt(a, keyId))
    first.kill('SIGCONT')
    expect(await asked).toBe('DisabledException')
  })

  it('let in whom the other knows, and nobody whose access key it withdrew', async () => {
    const credentials = await first.ask<TestCredentials>('principal-key', 'create', { name: 'administrator' })
    const guest = clientOf(second.endpoints.kms as string, credentials)
    const call = () => nameOfFailure(guest.send(new GenerateRandomCommand({ NumberOfBytes: 8 })))
    expect(await call()).toBe('none')
    await first.ask('principal-key', 'disable', { accessKeyId: credentials.accessKeyId })
    expect(await call()).toBe('UnrecognizedClientException')
    await first.ask('principal-key', 'enable', { accessKeyId: credentials.accessKeyId })
    expect(await call()).toBe('none')
    await first.ask('principal-key', 'delete', { accessKeyId: credentials.accessKeyId })
    expect(await call()).toBe('UnrecognizedClientException')
    guest.destroy()
  })

  it('share the bindings of TLS keys, and refuse a token that the other revoked', async () => {
    const key = await createTlsKey(first, 'ECC_NIST_P256')
    const bound = await bindKey(first, key)
    const sign = async ({ token: capability, spkiDigest }: BoundKey) => {
      await using client = await connectHks(second.endpoints.offload[0] as string, { tokens: [capability] })
      return await client.sign({ keyId: spkiDigest, input: certificateVerify('server', randomBytes(32)) })
    }
    // it was told at once and is read a moment later
    await expect.poll(async () => (await sign(bound)).ok).toBe(true)
    await first.ask('tls', 'revoke', { name: bound.name })
    expect(await sign(bound)).toMatchObject({ ok: false, code: errorNumbers.unauthenticated })
  })

  it('have one journal each', async () => {
    const { rows } = await server.query('gates', 'select id from instance')
    expect(rows).toHaveLength(2)
    expect(lines.join('')).not.toContain('unexpected error')
  })
})

describe('the password of the database', () => {
  it('is in no argument, no variable and no line of the log', () => {
    const seen = ['cmdline', 'environ'].map((file) => readFileSync(`/proc/${first.pid}/${file}`, 'latin1'))
    for (const text of [...seen, ...lines, JSON.stringify(configOf('second', token))])
      expect(text).not.toContain(gatewayPassword)
  })
})

describe('a gateway on a catalog that is another token’s', () => {
  it('does not start, says why, and has changed nothing', async () => {
    await using other = await createTestToken('another')
    const before = (await server.query('gates', 'select value from counter')).rows
    const opening = openGateway(configOf('third', other), { log: { write: () => {} } })
    const error = await opening.then(
      () => undefined,
      (cause: unknown) => cause,
    )
    expect(error).toBeInstanceOf(ProblemsError)
    expect((error as ProblemsError).problems).toMatchObject([{ cause: expect.stringContaining('another token') }])
    expect((await server.query('gates', 'select value from counter')).rows).toEqual(before)
  })
})

describe('a database that goes away under load', () => {
  it('stops both gateways within a second, with the error of an internal failure, and lets them go on when it is back', async () => {
    const keyId = await makeKey(clients.a)
    await Promise.all([encrypt(clients.a, keyId), encrypt(clients.b, keyId)])
    const outcomes: { readonly at: number; readonly failure: string }[] = []
    let isOver = false
    const load = Object.values(clients).map(async (kms) => {
      while (!isOver) {
        const failure = await nameOfFailure(encrypt(kms, keyId))
        outcomes.push({ at: performance.now(), failure })
      }
    })
    await server.stop('kill')
    const stoppedAt = performance.now()
    const since = (at: number) => outcomes.filter((outcome) => outcome.at > at)
    await expect.poll(() => since(stoppedAt + 2_000).length, { timeout: 20_000 }).toBeGreaterThan(4)
    expect(new Set(since(stoppedAt + 2_000).map(({ failure }) => failure))).toEqual(new Set(['KMSInternalException']))
    const random = clients.b.send(new GenerateRandomCommand({ NumberOfBytes: 8 }))
    expect(await nameOfFailure(random)).toBe('KMSInternalException')
    expect(await nameOfFailure(clients.b.send(new DisableKeyCommand({ KeyId: keyId })))).toBe('KMSInternalException')

    await server.start()
    for (const kms of Object.values(clients)) {
      await expect.poll(() => nameOfFailure(encrypt(kms, keyId)), { timeout: 20_000 }).toBe('none')
    }
    isOver = true
    await Promise.all(load)
    const told = lines.map((line) => JSON.parse(line) as { readonly where?: string; readonly msg: string })
    expect(told.filter(({ where }) => where === 'catalog')).toHaveLength(1)
    expect(told.filter(({ msg }) => msg === 'the catalog is back')).toHaveLength(1)
  })
})

describe('a gateway that is killed', () => {
  it('loses its leases: the other destroys what is due', async () => {
    const { a, b } = clients
    const keyId = await makeKey(a)
    await a.send(new ScheduleKeyDeletionCommand({ KeyId: keyId, PendingWindowInDays: 7 }))
    const objects = (await listObjectIds(token)).length
    // held by the first one, whoever took it at the start, and far from its end
    const end = clock.wallMs() + 30 * dayMs
    const statement =
      "update lease set holder = (select id from instance where pid = ?), expires_at = ? where name = 'deletion'"
    await server.query('gates', statement, [first.pid, end])
    const before = await leaseOf('deletion')
    first.kill('SIGKILL')
    await first.ended
    clock.passes(8 * dayMs)
    await ask('clock', 'confirm')
    const state = () => nameOfFailure(b.send(new DescribeKeyCommand({ KeyId: keyId })))
    await expect.poll(state, { timeout: 20_000 }).toBe('NotFoundException')
    expect((await leaseOf('deletion')).fence).toBe(before.fence + 1)
    expect((await leaseOf('deletion')).holder).not.toBe(before.holder)
    expect((await listObjectIds(token)).length).toBe(objects - 1)
  })
})
