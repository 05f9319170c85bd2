import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type OpenedJournal, openJournal } from '../../../../src/audit/journal.ts'
import { createAuthorizer } from '../../../../src/authorize/authorize.ts'
import { GatewayError } from '../../../../src/error.ts'
import type { GroupState } from '../../../../src/hsm/port.ts'
import { loadAddon } from '../../../../src/hsm/worker/addon.ts'
import { createObserver } from '../../../../src/observe/observe.ts'
import { createPipeline } from '../../../../src/pipeline.ts'
import { ProblemsError } from '../../../../src/problem.ts'
import { describeOperatorError } from '../../../../src/transport/operator/dialect.ts'
import { createOperatorDoor, type OperatorDoor } from '../../../../src/transport/operator/operator.ts'
import type { OperatorCommand } from '../../../../src/transport/operator/operator-command.ts'

const addon = loadAddon()
const account = '000000000000'
const http = { address: '127.0.0.1', port: 0 }

const commands: readonly OperatorCommand[] = [
  {
    noun: 'lamp-bulb',
    verb: 'create',
    readOnly: false,
    members: { name: 'string', watts: 'integer', on: 'boolean', pin: 'string' },
    optional: ['watts', 'on', 'pin'],
    secret: ['pin'],
    secretAnswer: ['secretAccessKey'],
    run: async (input) => ({ ...(input as object), secretAccessKey: 'only-once' }),
  },
  {
    noun: 'lamp-bulb',
    verb: 'break',
    readOnly: false,
    members: {},
    run: async () => {
      throw new Error('glass and wire')
    },
  },
  {
    noun: 'lamp-bulb',
    verb: 'find',
    readOnly: true,
    members: {},
    run: async () => {
      throw new GatewayError('NotFound', { text: 'There is no such bulb.' })
    },
  },
]

const group = (ready: boolean, trouble?: string): GroupState => ({
  name: 'default',
  ready,
  capabilities: undefined,
  tokens: [{ name: 'main', label: 'main', serial: '1', pinRefused: false, ...(trouble !== undefined && { trouble }) }],
  workers: [
    {
      id: 'main-serve-1',
      token: 'main',
      role: 'serve',
      state: ready ? 'ready' : 'dead',
      pid: 1,
      inFlight: 0,
      sessions: 2,
    },
  ],
})

let directory: string
let socket: string
let journal: OpenedJournal
let groups: readonly GroupState[]
let catalog: { readonly isCurrent: () => boolean } | undefined
let lines: string[]
let uid: number | undefined
const doors: OperatorDoor[] = []

function openDoor(): OperatorDoor {
  const observer = createObserver({ level: 'info', stream: { write: (line) => void lines.push(line) } })
  observer.watch({ groups: () => groups, journal })
  const door = createOperatorDoor({
    pipeline: createPipeline({
      authorizer: createAuthorizer({ identityPolicies: () => [], nowMs: Date.now }),
      journal,
      observer: observer.calls,
      describeError: (_door, error) => describeOperatorError(error),
    }),
    observer,
    hsm: { groups: () => groups },
    journal,
    ...(catalog && { catalog }),
    commands,
    partition: 'aws',
    account,
    region: 'us-east-1',
    peerCredentials: (fd) => ({ ...addon.peerCredentials(fd), ...(uid !== undefined && { uid }) }),
  })
  doors.push(door)
  return door
}

interface Answer {
  readonly status: number
  readonly body: string
}

function ask(options: {
  readonly socketPath?: string
  readonly port?: number
  readonly path: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}): Promise<Answer> {
  const { body, ...rest } = options
  return new Promise((resolve, reject) => {
    const call = request({ ...rest, agent: false }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
    })
    call.on('error', reject)
    call.end(body)
  })
}

const command = (name: string, body: unknown) =>
  ask({
    socketPath: socket,
    path: `/v1/${name}`,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })

/** CloudTrail records of commands in the journal, once it is closed. */
async function records(): Promise<readonly Record<string, unknown>[]> {
  await journal[Symbol.asyncDispose]()
  return readFileSync(path.join(directory, 'audit', '00000001.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).event)
    .filter((event) => event.eventSource === 'hsmgate.operator')
}

afterEach(() => {
  catalog = undefined
})

beforeEach(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'hsmgate-operator-'))
  socket = path.join(directory, 'operator.sock')
  journal = await openJournal({
    directory: path.join(directory, 'audit'),
    durability: 'kernel',
    segmentBytes: 1_000_000,
    reserveBytes: 0,
    alarmFreeBytes: 0,
    checkpointRecords: 1000,
    checkpointMinutes: 60,
    lockFile: addon.lockFile,
  })
  groups = [group(true)]
  lines = []
  uid = undefined
})

afterEach(async () => {
  for (const door of doors.splice(0)) await door[Symbol.asyncDispose]()
  await journal[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

describe('the command socket', () => {
  it('is open to its owner only', async () => {
    await openDoor().listen({ socket, http: null })
    expect(statSync(socket).mode & 0o777).toBe(0o600)
  })

  it('runs a command and records who gave it, without secrets', async () => {
    await openDoor().listen({ socket, http: null })
    const { status, body } = await command('lamp-bulb/create', { name: 'hall', watts: 5, pin: '1234' })
    expect(status).toBe(200)
    expect(JSON.parse(body)).toMatchObject({ name: 'hall', secretAccessKey: 'only-once' })
    const [record] = await records()
    expect(record).toMatchObject({
      eventName: 'LampBulbCreate',
      readOnly: false,
      userIdentity: { type: 'Operator', arn: `arn:aws:iam::${account}:operator/uid-${process.getuid?.()}` },
      requestParameters: { name: 'hall', watts: 5 },
      additionalEventData: { decidedBy: 'operator socket' },
    })
    expect(JSON.stringify(record)).not.toMatch(/only-once|1234"/)
  })

  it('refuses a peer of another user, before anything runs', async () => {
    uid = 65_534
    await openDoor().listen({ socket, http: null })
    const { status, body } = await command('lamp-bulb/create', { name: 'hall' })
    expect(status).toBe(403)
    expect(JSON.parse(body).error.code).toBe('CredentialsUnknown')
    expect(await records()).toEqual([])
    expect(lines.join('')).toContain('unauthenticated call refused')
  })

  it('lets root in, whoever runs the gateway', async () => {
    uid = 0
    await openDoor().listen({ socket, http: null })
    expect((await command('lamp-bulb/create', { name: 'hall' })).status).toBe(200)
  })

  it('tells every mistake in the members at once', async () => {
    await openDoor().listen({ socket, http: null })
    const { status, body } = await command('lamp-bulb/create', { watts: 'five', on: 1, colour: 'red' })
    expect(status).toBe(400)
    const { code, text } = JSON.parse(body).error
    expect(code).toBe('ValidationFailed')
    expect(text).toBe('"colour" is not known; name is missing; watts must be an integer; on must be a boolean.')
  })

  it.each([
    ['an array', '[]', 400],
    ['no JSON', '{"name":', 400],
    ['a body over the limit', JSON.stringify({ name: 'x'.repeat(300_000) }), 400],
    ['a prototype', '{"__proto__":{"name":"x"}}', 400],
  ])('answers %s with a modelled error', async (_what, body, status) => {
    await openDoor().listen({ socket, http: null })
    const answer = await command('lamp-bulb/create', body)
    expect(answer.status).toBe(status)
    expect(JSON.parse(answer.body).error.code).toBe('ValidationFailed')
  })

  it('answers an unknown command', async () => {
    await openDoor().listen({ socket, http: null })
    const { status, body } = await command('lamp-bulb/eat', {})
    expect([status, JSON.parse(body).error.text]).toEqual([404, 'There is no such command.'])
  })

  it('keeps the cause of an unexpected failure out of the answer and in the log', async () => {
    await openDoor().listen({ socket, http: null })
    const { status, body } = await command('lamp-bulb/break', {})
    expect(status).toBe(500)
    expect(body).not.toContain('glass')
    expect(lines.join('')).toContain('glass and wire')
  })

  it('passes on a modelled failure and records it', async () => {
    await openDoor().listen({ socket, http: null })
    expect((await command('lamp-bulb/find', {})).status).toBe(404)
    expect((await records())[0]).toMatchObject({ errorCode: 'NotFound', errorMessage: 'There is no such bulb.' })
  })

  it('replaces the socket of a gateway that was killed', async () => {
    const listenAndDie = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 9))`
    spawnSync(process.execPath, ['-e', listenAndDie, socket])
    expect(statSync(socket).isSocket()).toBe(true)
    await openDoor().listen({ socket, http: null })
    expect((await command('lamp-bulb/create', { name: 'hall' })).status).toBe(200)
  })

  it('refuses a socket that another gateway listens on', async () => {
    await openDoor().listen({ socket, http: null })
    const second = openDoor().listen({ socket, http: null })
    await expect(second).rejects.toMatchObject({ problems: [{ at: socket, cause: 'another gateway listens there' }] })
    expect((await command('lamp-bulb/create', { name: 'hall' })).status).toBe(200)
  })

  it('leaves a file that is in the way alone', async () => {
    writeFileSync(socket, 'mine')
    await expect(openDoor().listen({ socket, http: null })).rejects.toBeInstanceOf(ProblemsError)
    expect(readFileSync(socket, 'utf8')).toBe('mine')
  })

  it('says when the path is too long for a socket', async () => {
    const long = path.join(directory, 'x'.repeat(120))
    await expect(openDoor().listen({ socket: long, http: null })).rejects.toMatchObject({
      problems: [{ at: 'listen.operator.socket' }],
    })
  })
})

describe('the HTTP side', () => {
  async function listen(): Promise<number> {
    const url = await openDoor().listen({ socket, http })
    return Number(new URL(String(url)).port)
  }

  it('shows that the process lives', async () => {
    const port = await listen()
    expect(await ask({ port, path: '/healthz' })).toEqual({ status: 200, body: '{"status":"ok"}' })
  })

  it('is ready when every group has a warm worker', async () => {
    const port = await listen()
    const { status, body } = await ask({ port, path: '/readyz' })
    expect([status, JSON.parse(body)]).toEqual([
      200,
      {
        ready: true,
        groups: [{ name: 'default', ready: true, warmWorkers: 1, tokens: [{ name: 'main', pinRefused: false }] }],
        journal: { healthy: true },
      },
    ])
  })

  it('is not ready, and says why, when one group has none', async () => {
    const port = await listen()
    groups = [group(true), group(false, 'the module does not exist')]
    const { status, body } = await ask({ port, path: '/readyz' })
    expect(status).toBe(503)
    expect(JSON.parse(body)).toMatchObject({
      ready: false,
      groups: [{ ready: true }, { ready: false, tokens: [{ trouble: 'the module does not exist' }] }],
    })
  })

  it('is not ready while it cannot follow a catalog that it shares', async () => {
    let isCurrent = true
    catalog = { isCurrent: () => isCurrent }
    const port = await listen()
    const ready = async () => {
      const { status, body } = await ask({ port, path: '/readyz' })
      return [status, JSON.parse(body).ready, JSON.parse(body).catalog]
    }
    expect(await ready()).toEqual([200, true, { current: true }])
    isCurrent = false
    expect(await ready()).toEqual([503, false, { current: false }])
  })

  it('serves metrics in the format of Prometheus', async () => {
    const port = await listen()
    await command('lamp-bulb/create', { name: 'hall' })
    const { body } = await ask({ port, path: '/metrics' })
    expect(body).toContain('hsmgate_calls_total{door="operator",operation="LampBulbCreate",code="ok"} 1')
    expect(body).toContain('hsmgate_group_ready{group="default"} 1')
    expect(body).toContain('hsmgate_audit_healthy 1')
  })

  it.each(['evil.example', 'evil.example:8609', '127.0.0.1.evil.example', '[::1].evil.example'])(
    'refuses DNS rebinding: Host %j',
    async (host) => {
      const port = await listen()
      const { status, body } = await ask({ port, path: '/metrics', headers: { host } })
      expect(status).not.toBe(200)
      expect(body).not.toContain('hsmgate_')
    },
  )

  it.each(['127.0.0.1', 'localhost:8609', '[::1]:8609', 'LOCALHOST'])('accepts Host %s', async (host) => {
    const port = await listen()
    expect((await ask({ port, path: '/healthz', headers: { host } })).status).toBe(200)
  })

  it('gives no command', async () => {
    const port = await listen()
    const answer = await ask({ port, path: '/v1/lamp-bulb/create', method: 'POST', body: '{"name":"hall"}' })
    expect(answer.status).toBe(404)
  })

  it('says when its port is taken', async () => {
    const port = await listen()
    const second = openDoor().listen({ socket: `${socket}2`, http: { address: '127.0.0.1', port } })
    await expect(second).rejects.toMatchObject({
      problems: [{ at: 'listen.operator.http', cause: `127.0.0.1:${port} is taken by another process` }],
    })
  })
})
