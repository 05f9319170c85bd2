import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/error.ts'
import type { GroupState } from '../../../src/hsm/port.ts'
import { createLineLimit } from '../../../src/observe/line-limit.ts'
import { createObserver, type Observer } from '../../../src/observe/observe.ts'
import type { Call, Operation } from '../../../src/pipeline.ts'

let lines: Record<string, unknown>[]
let observer: Observer

function create(level: 'debug' | 'info' = 'info'): Observer {
  return createObserver({ level, stream: { write: (line) => void lines.push(JSON.parse(line)) } })
}

beforeEach(() => {
  lines = []
  observer = create()
})

const call = {
  door: 'kms',
  operation: { name: 'Decrypt' } as Operation,
  raw: { CiphertextBlob: 'c2VjcmV0LWNpcGhlcnRleHQ=' },
  requestId: 'r-1',
  source: { ip: '192.0.2.1', userAgent: 'test' },
} as unknown as Call
const principal = { type: 'user', arn: 'arn:aws:iam::000000000000:user/u', account: '0', principalId: 'A' } as const

const failed = (error: GatewayError) => ({ ok: false, error, authenticated: true }) as const
const metric = async (name: string) =>
  (await observer.metrics()).text.split('\n').filter((line) => line.startsWith(`hsmgate_${name}`))

describe('a finished call', () => {
  it('counts by door, operation and code, and writes no line', async () => {
    observer.calls.callFinished(call, { ok: true, output: {} }, principal, 3)
    observer.calls.callFinished(call, failed(new GatewayError('CiphertextInvalid')), principal, 3)
    expect(await metric('calls_total{')).toEqual([
      'hsmgate_calls_total{door="kms",operation="Decrypt",code="ok"} 1',
      'hsmgate_calls_total{door="kms",operation="Decrypt",code="CiphertextInvalid"} 1',
    ])
    expect(await metric('call_duration_seconds_sum')).toEqual([
      'hsmgate_call_duration_seconds_sum{door="kms",operation="Decrypt"} 0.006',
    ])
    expect(lines).toEqual([])
  })

  it('that failed because of the HSM is a warning, one that nobody expected an error with its cause', () => {
    observer.calls.callFinished(
      call,
      failed(new GatewayError('HsmFailure', undefined, { detail: '0x30' })),
      principal,
      1,
    )
    const cause = new TypeError('undefined is not a function')
    observer.calls.callFinished(call, failed(new GatewayError('Internal', undefined, { cause })), principal, 1)
    expect(lines).toMatchObject([
      { level: 'warn', code: 'HsmFailure', detail: '0x30', requestId: 'r-1', principal: principal.arn },
      { level: 'error', code: 'Internal', cause: { name: 'TypeError', message: 'undefined is not a function' } },
    ])
  })

  it('is a line each at level debug', () => {
    observer = create('debug')
    observer.calls.callFinished(call, { ok: true, output: { Plaintext: 'cGxhaW4=' } }, principal, 1)
    expect(lines).toMatchObject([{ level: 'debug', operation: 'Decrypt', msg: 'call answered' }])
    expect(JSON.stringify(lines)).not.toMatch(/cGxhaW4|c2VjcmV0/)
  })

  it('of a caller who could not be told is counted always and logged at a limited rate', async () => {
    for (let i = 0; i < 1000; i += 1) observer.calls.callUnauthenticated(call, new GatewayError('CredentialsUnknown'))
    expect(await metric('unauthenticated_calls_total{')).toEqual([
      'hsmgate_unauthenticated_calls_total{door="kms",code="CredentialsUnknown"} 1000',
    ])
    expect(lines.length).toBeGreaterThan(0)
    expect(lines.length).toBeLessThan(30)
  })
})

describe('the limit of lines', () => {
  it('says how many lines it left out', () => {
    let nowMs = 0
    const limit = createLineLimit(2, () => nowMs)
    expect([1, 2, 3, 4].map(() => limit.take('a'))).toEqual([0, 0, undefined, undefined])
    expect(limit.take('b')).toBe(0)
    nowMs = 1000
    expect([limit.take('a'), limit.take('a')]).toEqual([2, 0])
  })
})

describe('tokens and workers', () => {
  const worker = { id: 'main-serve-1', token: 'main', role: 'serve', pid: 42 } as const

  it('tell a worker’s life in lines and metrics', async () => {
    observer.hsm.workerStarted(worker)
    observer.hsm.workerReady(worker, 120.4, 7)
    observer.hsm.workerDied(worker, 'SIGKILL', false)
    expect(lines).toMatchObject([
      { level: 'info', worker: 'main-serve-1', startMs: 120, objects: 7 },
      { level: 'error', reason: 'SIGKILL' },
    ])
    expect(await metric('worker_deaths_total{')).toEqual([
      'hsmgate_worker_deaths_total{token="main",role="serve",expected="false"} 1',
    ])
  })

  it('tell a refused PIN as fatal, with the remedy', () => {
    observer.hsm.pinRefused('main', 'CKR_PIN_INCORRECT')
    expect(lines).toMatchObject([{ level: 'fatal', token: 'main', ckr: 'CKR_PIN_INCORRECT' }])
    expect(lines[0]?.remedy).toContain('hsmgate token retry-login')
  })

  it('count return values of the module', async () => {
    observer.hsm.ckr('main', 'CKR_DEVICE_ERROR', 'C_Sign', 'I')
    expect(await metric('hsm_ckr_total{')).toEqual([
      'hsmgate_hsm_ckr_total{token="main",call="C_Sign",ckr="CKR_DEVICE_ERROR",action="I"} 1',
    ])
  })

  it('are gauges read from their state when asked for, also after a worker is gone', async () => {
    const state = (workers: GroupState['workers']): readonly GroupState[] => [
      { name: 'default', ready: workers.length > 0, capabilities: undefined, tokens: [], workers },
    ]
    let groups = state([{ ...worker, state: 'ready', inFlight: 3, sessions: 2 }])
    observer.watch({ groups: () => groups })
    expect(await metric('workers{')).toEqual(['hsmgate_workers{token="main",role="serve",state="ready"} 1'])
    expect(await metric('worker_calls_in_flight{')).toEqual([
      'hsmgate_worker_calls_in_flight{token="main",role="serve"} 3',
    ])
    expect(await metric('sessions_in_use{')).toEqual(['hsmgate_sessions_in_use{token="main",role="serve"} 2'])
    groups = state([])
    expect(await metric('workers{')).toEqual([])
    expect(await metric('group_ready{')).toEqual(['hsmgate_group_ready{group="default"} 0'])
  })

  it('take a flood of standard error of a worker in', () => {
    for (let i = 0; i < 500; i += 1) observer.hsm.workerLog(worker, 'x'.repeat(10_000))
    expect(lines.length).toBeLessThan(30)
    expect(String(lines[0]?.line).length).toBeLessThan(1000)
  })
})

describe('the journal', () => {
  it('tells failures as fatal and repeats them at a limited rate', async () => {
    for (let i = 0; i < 100; i += 1)
      observer.journal.appendFailed(3, Object.assign(new Error('full'), { code: 'ENOSPC' }))
    expect(lines[0]).toMatchObject({ level: 'fatal', records: 3, cause: { code: 'ENOSPC' } })
    expect(lines.length).toBeLessThan(30)
    expect(await metric('audit_failures_total{')).toEqual(['hsmgate_audit_failures_total{step="append"} 100'])
  })

  it('shows its state', async () => {
    observer.journal.written(5, 5000, 1)
    observer.watch({ journal: { state: () => ({ healthy: true, sequence: 9, unsyncedRecords: 2, freeBytes: 1e9 }) } })
    const { text } = await observer.metrics()
    for (const line of [
      'records_total 5',
      'healthy 1',
      'sequence 9',
      'unsynced_records 2',
      'disk_free_bytes 1000000000',
    ])
      expect(text).toContain(`hsmgate_audit_${line}\n`)
  })
})

describe('secrets', () => {
  it('that hang on an error are not logged', () => {
    const cause = Object.assign(new Error('request failed'), {
      pin: 'hush-1',
      config: { headers: { authorization: 'hush-2' } },
      key: Buffer.from('hush-3'),
      cause: Object.assign(new Error('inner'), { secret: 'hush-4' }),
    })
    observer.unexpected('test', cause)
    expect(lines).toMatchObject([{ where: 'test', cause: { message: 'request failed', cause: { message: 'inner' } } }])
    expect(JSON.stringify(lines)).not.toMatch(/hush|68757368|aHVzaC/)
  })

  it('under a telling name are redacted wherever they are put', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('pin', 'password', 'secret', 'secretAccessKey', 'plaintext', 'signature', 'authorization'),
        (name) => {
          lines = []
          observer.note('info', 'a note', { [name]: 'hush' })
          expect(lines).toMatchObject([{ [name]: '[redacted]' }])
        },
      ),
    )
  })
})

describe('the metrics', () => {
  it('all have a help text, base units and names of the gateway', async () => {
    const { text, contentType } = await observer.metrics()
    expect(contentType).toContain('text/plain')
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)]
    const own = types.filter(([, name]) => name?.startsWith('hsmgate_'))
    expect(own.length).toBeGreaterThan(25)
    for (const [, name = '', type] of own) {
      expect(name, name).not.toMatch(/_(ms|milliseconds|micros|percent|count)$/)
      expect(name.endsWith('_total'), name).toBe(type === 'counter')
      expect(text).toContain(`# HELP ${name} `)
    }
    for (const [, name, type] of types) if (type === 'histogram') expect(name).toMatch(/_seconds$/)
  })
})
