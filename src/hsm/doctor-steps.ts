/**
 * The steps of an examination, each in a worker process of its own that ends with it. What goes wrong in one becomes a problem of the
 * diagnosis, with the name of the step, and nothing is thrown.
 */
import type { DoctorOptions, Draft, Patient } from './diagnosis.ts'
import { rememberRefusal, retryRemedy } from './doctor-pin.ts'
import type { Measurement, ModuleFacts, TokenFacts } from './examination.ts'
import type { OperationName, Request, Response, WorkerConfiguration, WorkerReady } from './frames.ts'
import { findPinFile } from './pin-latch.ts'
import { suggestPool } from './pool-size.ts'
import type { Capabilities, ObjectSummary } from './port.ts'
import { rvName } from './worker/rv.ts'
import { AskFailure, ownWorker, spawnWorker, type WorkerProcess } from './worker-process.ts'

const defaultSessions = 8
/** The anchor that holds the login, and one for somebody else. */
const sessionsLeft = 2
const drainLimitMs = 5000

interface Step {
  /** What the process was doing, for the finding when it dies. */
  readonly doing: string
  readonly remedy: string
}

export function createSteps(patient: Patient, options: DoctorOptions, draft: Draft) {
  const { stepLimitMs, workerCommand = ownWorker } = options
  const at = patient.name === undefined ? patient.module : `tokens.${patient.name}`

  /** A worker for the time of `use`; ends by an orderly drain where it can. */
  async function withWorker<T>(role: 'serve' | 'manage', use: (worker: WorkerProcess) => Promise<T>): Promise<T> {
    const token = patient.name ?? 'examined'
    const hooks = { onAnswer() {}, onIdle() {}, onLog() {} }
    const worker = spawnWorker({ id: `doctor/${role}`, token, role, command: workerCommand, env: patient.env }, hooks)
    try {
      return await use(worker)
    } finally {
      await worker.ask('drain', {}, drainLimitMs).catch(() => {})
      worker.kill('examined')
      await worker.dead
    }
  }

  /** One question; what goes wrong becomes a problem and `undefined`. */
  async function ask<N extends OperationName>(
    worker: WorkerProcess,
    operation: N,
    fields: Request<N>,
    { doing, remedy }: Step,
    limitMs = stepLimitMs,
  ): Promise<Response<N> | undefined> {
    try {
      return await worker.ask(operation, fields, limitMs)
    } catch (error) {
      const [cause, what] =
        error instanceof AskFailure
          ? [`${doing}: ${error.failure.detail}`, remedy]
          : await describeDeath(worker, doing, limitMs)
      draft.problems.push({ at, cause, remedy: what })
      return undefined
    }
  }

  async function describeDeath(
    worker: WorkerProcess,
    doing: string,
    limitMs: number,
  ): Promise<readonly [string, string]> {
    const reason = await worker.dead
    if (reason.startsWith('no answer')) {
      return [
        `${doing}: the module gave no answer within ${limitMs / 1000} s; its process was killed`,
        'see to the connection between the module and its HSM; a slow one may need a higher --step-limit',
      ]
    }
    const remedy =
      "ask the module's vendor, with the name of the step; the gateway itself survives such a module, its clients would wait"
    return [`${doing}: the process of the module died (${reason})`, remedy]
  }

  function configurationFor(role: 'serve' | 'manage', token: TokenFacts): WorkerConfiguration {
    const { name = 'examined', module, initArgs, label, cryptoUser, profile, pinFile = '' } = patient
    const named = label === undefined ? { serial: patient.serial ?? token.serial } : { label }
    const limits = [token.maxSessions, token.maxRwSessions].filter((limit) => typeof limit === 'number')
    const most = Math.max(
      1,
      Math.min(options.sessions ?? defaultSessions, ...limits.map((limit) => limit - sessionsLeft)),
    )
    const sessions = role === 'manage' ? 1 : most
    return { role, token: name, module, initArgs, ...named, pinFile, cryptoUser, profile, sessions }
  }

  /** Configures, and remembers a PIN that the token refuses. */
  async function logIn(
    worker: WorkerProcess,
    role: 'serve' | 'manage',
    token: TokenFacts,
  ): Promise<WorkerReady | undefined> {
    const before = findPinFile(patient.pinFile ?? '')
    let refused: number | undefined
    const configuration = configurationFor(role, token)
    const doing = role === 'serve' ? 'logging in and proving the first mechanisms' : 'logging in for token objects'
    try {
      return (await worker.ask('configure', { configuration }, stepLimitMs)).ready as WorkerReady
    } catch (error) {
      if (error instanceof AskFailure && error.failure.rv >= 0xa0 && error.failure.rv <= 0xa4)
        refused = error.failure.rv
      else if (error instanceof AskFailure) {
        draft.login = { state: 'failed', why: error.failure.detail }
        draft.problems.push({
          at,
          cause: `${doing}: ${error.failure.detail}`,
          remedy: 'see to the PIN file, the user and the state of the token',
        })
      } else {
        const [cause, remedy] = await describeDeath(worker, doing, stepLimitMs)
        draft.login = { state: 'failed', why: cause }
        draft.problems.push({ at, cause, remedy })
      }
    }
    if (refused === undefined) return undefined
    const pins = [before, findPinFile(patient.pinFile ?? '')].filter((pin) => pin !== undefined)
    rememberRefusal(patient, options, token, pins, refused, draft)
    draft.login = { state: 'refused', why: rvName(refused) }
    draft.problems.push({
      at: patient.pinFile ?? at,
      cause: `the token refused the PIN (${rvName(refused)}); it is not tried again`,
      remedy: retryRemedy(patient),
    })
    return undefined
  }

  return {
    examine: () =>
      withWorker('serve', async (worker) => {
        const { module, initArgs, label, serial } = patient
        const request = { module, initArgs, label, serial }
        const remedy =
          'see to the installation of the module, its configuration and environment, and the name of the token'
        const answer = await ask(worker, 'examine', { request }, { doing: 'loading the module', remedy })
        return answer?.facts as ModuleFacts | undefined
      }),

    useToken: (token: TokenFacts) =>
      withWorker('serve', async (worker) => {
        const ready = await logIn(worker, 'serve', token)
        if (ready === undefined) return
        draft.login = { state: 'done' }
        draft.sessions = ready.sessions
        const vendor = "the gateway cannot serve with this token before the cause is found: see the HSM's own log"
        const probed = await ask(
          worker,
          'probe',
          {},
          { doing: 'trying what the token can do', remedy: vendor },
          stepLimitMs * 3,
        )
        draft.capabilities = probed?.capabilities as Capabilities | undefined
        if (probed === undefined || options.measureMs === 0) return
        const { measureMs: durationMs } = options
        const measured = await ask(
          worker,
          'measure',
          { durationMs },
          { doing: 'several sessions at once', remedy: vendor },
        )
        if (measured === undefined) return
        const measurement = measured.measurement as Measurement
        draft.measurement = measurement
        draft.pool = suggestPool(token, measurement.rates)
        judgeMeasurement(measurement, token, draft)
      }),

    listObjects: async (token: TokenFacts) => {
      if (draft.login.state !== 'done') return
      await withWorker('manage', async (worker) => {
        if ((await logIn(worker, 'manage', token)) === undefined) return
        const remedy = 'without this the gateway can make no keys and adopt none'
        const listed = await ask(worker, 'enumerate', {}, { doing: 'listing the objects', remedy })
        if (listed !== undefined) draft.objects = listed.objects as readonly ObjectSummary[]
      })
    },
  }
}

function judgeMeasurement({ ivs, concurrency }: Measurement, { label }: TokenFacts, draft: Draft): void {
  const at = `token ${label}`
  const { wrong, failed, sessions, operations } = concurrency
  if (wrong > 0) {
    const cause = `${wrong} of ${operations} answers were wrong with ${sessions} sessions at work: the module is not safe for threads`
    draft.problems.push({ at, cause, remedy: 'set sessions to 1 and use more workers, which are processes' })
  }
  const refusals = Object.entries(failed).map(([name, count]) => `${count} times ${name}`)
  if (refusals.length > 0) {
    const cause = `with ${sessions} sessions at work the token refused ${refusals.join(', ')}`
    draft.warnings.push({ at, cause, remedy: 'set fewer sessions' })
  }
  if (ivs?.made === 'repeated') {
    draft.warnings.push({
      at,
      cause: 'IVs that the module makes repeat',
      remedy: 'never let it make them; the gateway gives its own where they are taken',
    })
  }
}
