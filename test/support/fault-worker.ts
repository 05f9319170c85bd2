/**
 * A worker process that speaks the frame protocol over no module at all and does what a call's input says: answer, crash, hang, fail. For tests
 * of what the gateway side does about it.
 *
 * Its folder (environment FAULT_FOLDER) holds `journal`, one line per configure and per call, and marks of what is to happen only once. A PIN
 * file that starts with `wrong` is refused; a module file with the content `broken` fails to initialise, `fatal` kills the worker.
 */
import { appendFileSync, closeSync, openSync, readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import path from 'node:path'
import { createFrameWriter, createRequestReader, type RequestFrame } from '../../src/hsm/frame-codec.ts'
import { probeVersion, type WorkerConfiguration } from '../../src/hsm/frames.ts'

export interface FaultOrder {
  readonly do: 'answer' | 'crash' | 'hang' | 'slow' | 'fail' | 'garbage'
  readonly tag?: string
  /** A name: only the first process that comes by obeys, all others answer. */
  readonly once?: string
  readonly ms?: number
  readonly action?: string
  readonly code?: string
  readonly rv?: number
}

const folder = process.env.FAULT_FOLDER ?? ''
const socket = new Socket({ fd: 3, readable: true, writable: true })
const writer = createFrameWriter(socket)
let configuration: WorkerConfiguration | undefined
let sessionObjects = 0

const note = (...words: readonly (string | number)[]): void =>
  appendFileSync(path.join(folder, 'journal'), `${words.join(' ')}\n`)

function isFirst(name: string): boolean {
  try {
    closeSync(openSync(path.join(folder, `once-${name}`), 'wx'))
    return true
  } catch {
    return false
  }
}

function configure(callId: number, given: WorkerConfiguration): void {
  configuration = given
  const module = readFileSync(given.module, 'utf8').trim()
  if (module === 'fatal') process.kill(process.pid, 'SIGSEGV')
  if (module === 'broken') {
    note('initialise', given.role)
    const failure = {
      code: 'KeyUnavailable',
      action: 'D',
      rv: 0x30,
      call: 'C_Initialize',
      detail: 'C_Initialize: CKR_DEVICE_ERROR',
    }
    writer.failure(callId, 0, failure as never)
    return
  }
  const pin = readFileSync(given.pinFile, 'utf8').trim()
  note('login', given.role, pin)
  if (pin.startsWith('wrong')) {
    const failure = {
      code: 'KeyUnavailable',
      action: 'O',
      rv: 0xa0,
      call: 'C_Login',
      detail: 'C_Login: CKR_PIN_INCORRECT',
    }
    writer.failure(callId, 0, failure as never)
    return
  }
  console.error(`configured ${given.role}`)
  const ready = {
    label: given.label ?? 'label',
    serial: given.serial ?? '0001',
    manufacturer: 'test',
    model: 'fault worker',
    firmware: '1',
    libraryVersion: '1',
    sessions: given.sessions,
    objects: 0,
    pin: { inode: '0', changeTimeNs: '0', bytes: 0 },
  }
  writer.response(callId, 'configure', 0, { ready })
}

function obey(callId: number, input: Uint8Array, answer: () => void): void {
  let order: FaultOrder = { do: 'answer' }
  try {
    order = JSON.parse(Buffer.from(input).toString('utf8')) as FaultOrder
  } catch {}
  note('call', process.pid, order.tag ?? '-', order.do)
  if (order.once !== undefined && !isFirst(order.once)) answer()
  else if (order.do === 'crash') process.kill(process.pid, 'SIGKILL')
  else if (order.do === 'garbage') socket.write(Buffer.alloc(64, 0xff))
  else if (order.do === 'slow') setTimeout(answer, order.ms)
  else if (order.do === 'fail') {
    const { action = 'A', code = 'HsmFailure', rv = 0 } = order
    writer.failure(callId, 0, { code, action, rv, call: 'C_Sign', detail: `ordered ${action}` } as never)
  } else if (order.do !== 'hang') answer()
}

function receive(frame: RequestFrame): void {
  const { callId } = frame
  switch (frame.operation) {
    case 'configure':
      configure(callId, frame.fields.configuration as WorkerConfiguration)
      break
    case 'sign': {
      const signature = Buffer.from(String(process.pid))
      obey(callId, frame.fields.input, () => writer.response(callId, 'sign', 5, { signature }))
      break
    }
    case 'generate': {
      const { keyId, residence } = frame.fields.intent as { keyId: string; residence: string }
      const session = residence === 'session' ? ++sessionObjects : 0
      obey(callId, Buffer.from(keyId), () =>
        writer.response(callId, 'generate', 5, { session, construction: 0, publicKey: Buffer.alloc(0) }),
      )
      break
    }
    case 'probe': {
      note('probe', process.pid)
      const capabilities = {
        probe: probeVersion,
        specs: {},
        algorithms: [],
        oaepSha256: 'none',
        construction: 'none',
        gcmIv: 'none',
        refused: [],
      }
      writer.response(callId, 'probe', 0, { capabilities })
      break
    }
    case 'forget':
      note('forget', configuration?.role ?? '')
      writer.response(callId, 'forget', 0, {})
      break
    case 'destroy':
      note('destroy', configuration?.role ?? '')
      writer.response(callId, 'destroy', 0, { destroyed: 1 })
      break
    case 'drain':
      note('drain', process.pid)
      writer.response(callId, 'drain', 0, {})
      writer.flush(() => process.exit(0))
      break
    default:
      writer.failure(callId, 0, { code: 'Unsupported', action: 'A', rv: 0, call: '', detail: 'not acted out' })
  }
}

const read = createRequestReader(receive)
socket.on('data', (chunk: Buffer) => read(chunk))
socket.on('error', () => process.exit(1))
socket.on('close', () => process.exit(0))
