/**
 * A real worker process on its pipe, for tests of the worker itself: frames in, answers or failures out. No supervisor, no retries.
 *
 *   await using worker = await startWorker(token, { role: 'serve' })
 *   const { signature } = await worker.ask('sign', { ...keyFields(key), algorithm, input })
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { Duplex } from 'node:stream'
import type { SoftHsmToken } from '../../softhsm/token.ts'
import { createFrameWriter, createResponseReader } from '../../src/hsm/frame-codec.ts'
import {
  algorithms,
  constructions,
  type OperationName,
  purposes,
  type Request,
  type Response,
  specs,
  type WorkerConfiguration,
  type WorkerFailure,
  type WorkerReady,
} from '../../src/hsm/frames.ts'
import type { Construction, GenerateIntent, KeySpec, Purpose } from '../../src/hsm/port.ts'

export class WorkerRefused extends Error {
  readonly failure: WorkerFailure
  constructor(failure: WorkerFailure, stderr: string) {
    super(`${failure.code} (${failure.action}) ${failure.detail}${failure.code === 'Internal' ? `: ${stderr}` : ''}`)
    this.failure = failure
  }
}

export interface TestWorker extends AsyncDisposable {
  readonly child: ChildProcess
  readonly ready: WorkerReady
  readonly stderr: () => string
  ask<N extends OperationName>(operation: N, fields: Request<N>, budgetMs?: number): Promise<Response<N>>
  /** The code of the refusal; fails the test when there is none. */
  refusal<N extends OperationName>(operation: N, fields: Request<N>, budgetMs?: number): Promise<WorkerFailure>
  /** Exit code or signal. */
  exit(): Promise<number | string>
}

const main = path.resolve(import.meta.dirname, '../../src/hsm/worker/main.ts')

export async function startWorker(
  token: SoftHsmToken,
  overrides: Partial<WorkerConfiguration> & { readonly env?: Readonly<Record<string, string>> } = {},
): Promise<TestWorker> {
  const { env, ...configuration } = overrides
  const child = spawn(process.execPath, [main], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...token.env, ...env },
  })
  const pipe = child.stdio[3] as Duplex
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const exited = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string)
  const open = new Map<
    number,
    { operation: OperationName; resolve: (fields: never) => void; reject: (error: Error) => void }
  >()
  const read = createResponseReader(
    (callId) => open.get(callId)?.operation,
    ({ callId, fields, failure }) => {
      const waiting = open.get(callId)
      open.delete(callId)
      if (failure === undefined) waiting?.resolve(fields as never)
      else waiting?.reject(new WorkerRefused(failure, stderr))
    },
  )
  pipe.on('data', read)
  pipe.on('error', () => {})
  pipe.on('close', () => {
    for (const { reject } of open.values()) reject(new Error(`worker gone: ${stderr}`))
    open.clear()
  })
  const writer = createFrameWriter(pipe)
  let lastId = 0
  function ask<N extends OperationName>(operation: N, fields: Request<N>, budgetMs = 20_000): Promise<Response<N>> {
    const { promise, resolve, reject } = Promise.withResolvers<Response<N>>()
    const callId = ++lastId
    open.set(callId, { operation, resolve: resolve as never, reject })
    writer.request(callId, operation, budgetMs, fields)
    return promise
  }
  async function refusal<N extends OperationName>(operation: N, fields: Request<N>, budgetMs?: number) {
    try {
      await ask(operation, fields, budgetMs)
    } catch (error) {
      if (error instanceof WorkerRefused) return error.failure
      throw error
    }
    throw new Error(`${operation} was not refused`)
  }
  async function dispose() {
    pipe.destroy()
    await exited
  }
  try {
    const { ready } = await ask('configure', {
      configuration: {
        role: 'serve',
        token: 'test',
        module: token.module,
        ...(configuration.serial === undefined ? { label: token.label } : {}),
        pinFile: token.pinFile,
        profile: 'softhsm',
        sessions: 2,
        ...configuration,
      } satisfies WorkerConfiguration,
    })
    return {
      child,
      ready: ready as WorkerReady,
      stderr: () => stderr,
      ask,
      refusal,
      exit: () => exited,
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

export interface TestKey {
  readonly purpose: Purpose
  readonly spec: KeySpec
  readonly construction: Construction
  readonly session: number
  readonly objectId: Buffer
  readonly label?: string
  readonly publicKey: Buffer
}

/** The fields that name a key in a request. */
export function keyFields(key: TestKey, overrides: Partial<TestKey> = {}) {
  const { purpose, spec, construction, session, objectId, label } = { ...key, ...overrides }
  return {
    purpose: purposes.indexOf(purpose),
    spec: specs.indexOf(spec),
    construction: constructions.indexOf(construction),
    session,
    objectId,
    label: label ?? '',
  }
}

export function targetFields(key: TestKey) {
  const fields = keyFields(key)
  return {
    targetPurpose: fields.purpose,
    targetSpec: fields.spec,
    targetConstruction: fields.construction,
    targetSession: fields.session,
    targetObjectId: fields.objectId,
    targetLabel: fields.label,
  }
}

export function algorithmCode(name: (typeof algorithms)[number]): number {
  return algorithms.indexOf(name)
}

/** Makes a key on `manage`, or a session key on a `serve` worker. */
export async function generateKey(
  worker: TestWorker,
  intent: Pick<GenerateIntent, 'spec' | 'usage'> & Partial<GenerateIntent>,
): Promise<TestKey> {
  const complete: GenerateIntent = {
    group: 'test',
    purpose: 'kms',
    objectId: crypto.getRandomValues(Buffer.alloc(16)),
    keyId: crypto.randomUUID(),
    number: 1,
    residence: 'token',
    ...intent,
  }
  const { session, construction, publicKey } = await worker.ask('generate', { intent: complete })
  const { purpose, spec, objectId } = complete
  return {
    purpose,
    spec,
    construction: constructions[construction] as Construction,
    session,
    objectId: Buffer.from(objectId),
    publicKey: Buffer.from(publicKey),
  }
}
