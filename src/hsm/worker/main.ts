/**
 * The worker process: one duplex pipe on descriptor 3, one role for life, told by the first frame. It ends when the pipe closes, when it
 * is told to drain, or with its parent; stderr carries one-line JSON for the supervisor's log, stdout nothing.
 *
 * Requests run concurrently; answers go out in the order in which they become ready. `drain` answers after everything before it.
 */
import type { ExamineRequest, ModuleFacts } from '../examination.ts'
import {
  createFrameWriter,
  createRequestReader,
  decodeRequest,
  encodeQuestion,
  type RequestFrame,
} from '../frame-codec.ts'
import { FrameError } from '../frame-fields.ts'
import type { OperationName, Response, WorkerConfiguration, WorkerReady } from '../frames.ts'
import { loadAddon, type Plan } from './addon.ts'
import { examineModule } from './examine.ts'
import { proveFacts } from './facts.ts'
import { CallFailure, refusal, toFailure } from './failure.ts'
import { HandleCache } from './handles.ts'
import { type Call, Jobs, openCall } from './jobs.ts'
import { log } from './log.ts'
import { type OpenToken, openToken } from './login.ts'
import { Objects } from './objects.ts'
import { findProfile } from './profiles.ts'
import { Serving } from './serve.ts'

/** A role's answer to everything but configure and drain. */
interface Role {
  handle(call: Call, frame: RequestFrame): Promise<Response<OperationName>>
  close?(): void
}

/** How long an orderly end may take before the process kills itself: a module may hang for ever. */
const endTimeoutMs = 5000

const addon = loadAddon()
addon.hardenProcess({ dieWithParent: true })
const pipe = addon.openPipe(3, { onFrames, onFailed, onEnd })
const writer = createFrameWriter({
  writable: true,
  write(frames, sent) {
    pipe.write(frames)
    sent()
  },
})

const read = createRequestReader(receive)

let role: Role | undefined
let token: OpenToken | undefined
let jobs: Jobs | undefined
let givenPin: Buffer | undefined
let isConfigured = false
let isEnding = false
let underWay = 0
let onIdle: (() => void) | undefined

async function configure(call: Call, value: unknown): Promise<Response<'configure'>> {
  if (isConfigured) throw refusal('ValidationFailed', 'configured already', 'B')
  isConfigured = true
  const configuration = readConfiguration(value)
  jobs = new Jobs(findProfile(configuration.profile))
  token = await openToken(addon, configuration, jobs, takePin(configuration))
  const facts = await proveFacts(jobs, call, token.mechanisms)
  const handles = new HandleCache(jobs, () => pipe.forget())
  const found = await handles.load(call)
  const objects = new Objects(jobs, handles)
  const allowsThroughMemory = configuration.allowImportThroughMemory === true
  if (configuration.role === 'manage') {
    const { Managing } = await import('./manage.ts')
    role = new Managing({ jobs, objects, facts, allowsThroughMemory, modulePath: configuration.module, token })
  } else {
    role = new Serving({ jobs, objects, facts, allowsThroughMemory, remember })
    pipe.attach(token.pool)
  }
  const { slot, module, sessions, pin } = token
  const { label, serial, manufacturer, model, firmware } = slot
  const { libraryVersion } = module
  const ready: WorkerReady = {
    label,
    serial,
    manufacturer,
    model,
    firmware,
    libraryVersion,
    sessions,
    objects: found,
    pin,
  }
  log('info', 'worker ready', { role: configuration.role, token: configuration.token, objects: found })
  return { ready }
}

/** The PIN that was handed over, where the configuration says so; it is its receiver's to wipe. */
function takePin(configuration: WorkerConfiguration): Buffer | undefined {
  if (configuration.givenPin === undefined) return undefined
  const pin = givenPin
  givenPin = undefined
  if (pin === undefined) throw refusal('ValidationFailed', 'no PIN was handed over', 'B')
  return pin
}

function keepPin(pin: Uint8Array): Response<'givePin'> {
  givenPin?.fill(0)
  givenPin = Buffer.from(pin)
  pin.fill(0)
  return {}
}

/** Instead of a configuration: the process has looked at its module and does nothing else. */
function examine(request: unknown): ModuleFacts {
  if (isConfigured) throw refusal('ValidationFailed', 'configured already', 'B')
  isConfigured = true
  return examineModule(addon, new Jobs(findProfile('generic')), request as ExamineRequest)
}

function readConfiguration(value: unknown): WorkerConfiguration {
  const configuration = value as WorkerConfiguration
  const { role, module, label, serial, pinFile, sessions, profile } = configuration
  const isSound =
    (role === 'serve' || role === 'manage') &&
    typeof module === 'string' &&
    typeof pinFile === 'string' &&
    typeof profile === 'string' &&
    Number.isSafeInteger(sessions) &&
    sessions >= 0 &&
    sessions <= 1024 &&
    (label === undefined) !== (serial === undefined)
  if (!isSound) throw refusal('ValidationFailed', 'malformed worker configuration', 'B')
  return configuration
}

async function handle(call: Call, frame: RequestFrame): Promise<Response<OperationName>> {
  if (frame.operation === 'configure') return configure(call, frame.fields.configuration)
  if (frame.operation === 'givePin') return keepPin(frame.fields.pin)
  if (frame.operation === 'examine') return { facts: examine(frame.fields.request) }
  if (role === undefined) throw refusal('ValidationFailed', 'not configured', 'B')
  return role.handle(call, frame)
}

function receive(frame: RequestFrame): void {
  if (frame.operation === 'drain') {
    drain(frame.callId)
    return
  }
  const call = openCall(frame.operation, frame.budgetMs)
  underWay++
  answer(call, frame)
}

/** What `Serving` answered once, the pipe answers from now on. */
function remember(frame: RequestFrame, plan: Plan): void {
  const { op, mechanism, key, params, prefix, inputMin, inputMax, outputMin, outputMax } = plan
  const question = encodeQuestion(frame)
  pipe.remember(question, op, mechanism, key, params, prefix, inputMin, inputMax, outputMin, outputMax)
}

async function answer(call: Call, frame: RequestFrame): Promise<void> {
  const { callId, operation } = frame
  try {
    const fields = await handle(call, frame)
    writer.response(callId, operation, micros(call), fields as never)
    wipeAnswer(operation, fields)
  } catch (error) {
    if (!(error instanceof CallFailure)) {
      log('error', 'worker fault', { operation, fault: faultOf(error) })
    }
    writer.failure(callId, micros(call), toFailure(error))
  }
  underWay--
  if (underWay === 0) onIdle?.()
}

/** Class and place: a message may quote what it was given. */
function faultOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error
  const places = (error.stack ?? '').split('\n').filter((line) => line.startsWith('    at '))
  return [error.name, ...places.slice(0, 5).map((line) => line.trim())].join(' ')
}

function micros(call: Call): number {
  return Math.min(Math.round(call.hsmMicros), 0xffffffff)
}

/** The writer has its own copy, which it wipes once sent. */
function wipeAnswer(operation: OperationName, fields: Response<OperationName>): void {
  if (operation === 'decrypt' || operation === 'random') (fields as Response<'decrypt'>).output.fill(0)
  else if (operation === 'derive') (fields as Response<'derive'>).secret.fill(0)
  else if (operation === 'sealRandom') (fields as Response<'sealRandom'>).plaintext.fill(0)
  else if (operation === 'generateDataKeyPair') (fields as Response<'generateDataKeyPair'>).privateKey.fill(0)
}

async function drain(callId: number): Promise<void> {
  if (underWay > 0) await new Promise<void>((resolve) => (onIdle = resolve))
  await closeToken()
  writer.response(callId, 'drain', 0, {})
  writer.flush(() => process.exit(0))
}

/** Sessions and C_Finalize before the process ends: some modules crash in their exit handlers otherwise. */
async function closeToken(): Promise<void> {
  isEnding = true
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), endTimeoutMs).unref()
  role?.close?.()
  await jobs?.close()
  token?.module.finalize()
}

async function end(why: string, exitCode: number): Promise<void> {
  if (isEnding) return
  log(exitCode === 0 ? 'info' : 'error', 'worker ends', { why })
  await closeToken().catch(() => {})
  process.exit(exitCode)
}

function onFrames(frames: Buffer): void {
  try {
    read(frames)
  } catch (error) {
    breakOff(error)
  }
}

/** A plan did not hold: the request goes the long way, with what the module has said so far. */
function onFailed(bytes: Buffer, rv: number, hsmMicros: number, waitedMicros: number, key: bigint): void {
  let frame: RequestFrame
  try {
    frame = decodeRequest(bytes, 4, bytes.length)
  } catch (error) {
    breakOff(error)
    return
  }
  const call = openCall(frame.operation, frame.budgetMs - waitedMicros / 1000)
  call.hsmMicros = hsmMicros
  if (rv !== 0) call.early = { key, result: { rv, output: null, handle: 0n, handle2: 0n } }
  underWay++
  answer(call, frame)
}

function onEnd(isBroken: boolean): void {
  if (isBroken) breakOff(new FrameError('a length that no frame has'))
  else end('pipe closed', 0)
}

function breakOff(error: unknown): void {
  log('error', 'pipe broken', { fault: error instanceof Error ? error.message : 'unknown' })
  end('pipe broken', 0)
}

process.on('SIGINT', () => {}) // Ctrl-C reaches the whole foreground group; the gateway drains its workers itself
process.on('SIGTERM', () => end('asked to end', 0))
