/**
 * Examines a module and one of its tokens in throw-away worker processes: what it says of itself, what it really does, how fast, and what
 * lies in it. A crash, a hang or a refusal is a finding, never an exception, and ends only the step that met it.
 *
 * One login for each process, and none at all with a PIN that is latched as refused, or while the token says that one try is left.
 */
import { statSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import type { Problem } from '../problem.ts'
import type { Measurement, ModuleFacts, TokenFacts } from './examination.ts'
import type { OperationName, Request, Response, WorkerConfiguration, WorkerReady } from './frames.ts'
import { findPinFile, openPinLatch, type PinLatch, type PinOwner } from './pin-latch.ts'
import { type SuggestedPool, suggestPool } from './pool-size.ts'
import type { Capabilities, ObjectSummary } from './port.ts'
import type { TokenConfig } from './token-config.ts'
import { rvName } from './worker/rv.ts'
import { AskFailure, ownWorker, spawnWorker, type WorkerProcess } from './worker-process.ts'

export interface Patient
  extends Pick<TokenConfig, 'module' | 'initArgs' | 'label' | 'serial' | 'cryptoUser' | 'profile'> {
  /** Name in the configuration, where it has one. */
  readonly name?: string
  /** Without it nothing that needs a login is tried. */
  readonly pinFile?: string
  /** The whole environment of the workers. */
  readonly env: Readonly<Record<string, string>>
}

export interface DoctorOptions {
  /** Where refused PINs are remembered; the gateway's own state folder for its tokens. */
  readonly latchDirectory: string
  /** How long one step may take before its process is killed. */
  readonly stepLimitMs: number
  /** Sessions to measure with at most; default 8. */
  readonly sessions?: number
  /** Of the measurement as a whole, roughly; 0: nothing is measured. */
  readonly measureMs: number
  /** Program and arguments of a worker, when it is not hsmgate's own. */
  readonly workerCommand?: readonly string[]
}

export interface Diagnosis {
  readonly module: string
  readonly facts?: ModuleFacts
  readonly login: { readonly state: 'done' | 'not tried' | 'refused' | 'failed'; readonly why?: string }
  /** Sessions of the worker that was measured. */
  readonly sessions?: number
  readonly capabilities?: Capabilities
  readonly measurement?: Measurement
  readonly pool?: SuggestedPool
  /** Keys in the token; certificates and data are not looked at. */
  readonly objects?: readonly ObjectSummary[]
  /** What stands in the way of serving. */
  readonly problems: readonly Problem[]
  /** What an operator should know. */
  readonly warnings: readonly Problem[]
}

const defaultSessions = 8
/** The anchor that holds the login, and one for somebody else. */
const sessionsLeft = 2
const drainLimitMs = 5000

type Draft = { -readonly [K in keyof Diagnosis]: Diagnosis[K] } & { problems: Problem[]; warnings: Problem[] }

export async function diagnose(patient: Patient, options: DoctorOptions): Promise<Diagnosis> {
  const draft: Draft = { module: patient.module, login: { state: 'not tried' }, problems: [], warnings: [] }
  const steps = createSteps(patient, options, draft)
  const missing = isAbsolute(patient.module) ? findFileFault(patient.module) : undefined
  if (missing !== undefined) {
    draft.problems.push({
      at: patient.module,
      cause: `the module ${missing}`,
      remedy: 'install the PKCS#11 module of the HSM, or correct the path',
    })
    return draft
  }
  const facts = await steps.examine()
  if (facts === undefined) return draft
  draft.facts = facts
  const { token } = facts
  if (token === undefined) {
    draft.login = { state: 'not tried', why: 'no token was chosen' }
    if (facts.tokens.length === 0) {
      draft.problems.push({
        at: patient.module,
        cause: `none of its ${facts.slots} slots holds a token`,
        remedy: 'see to the connection to the HSM and to the configuration of its client',
      })
    }
    return draft
  }
  judgeToken(token, draft)
  const why = findReasonNotToLogIn(patient, options, token, draft)
  if (why !== undefined) {
    draft.login = { state: 'not tried', why }
    return draft
  }
  await steps.useToken(token)
  await steps.listObjects(token)
  return draft
}

/** What the token's own flags say. */
function judgeToken({ flags, label }: TokenFacts, draft: Draft): void {
  const at = `token ${label}`
  const has = (flag: string): boolean => flags.includes(flag)
  const problem = (cause: string, remedy: string) => draft.problems.push({ at, cause, remedy })
  const warning = (cause: string, remedy: string) => draft.warnings.push({ at, cause, remedy })
  if (!has('TOKEN_INITIALIZED')) problem('the token is not initialised', "initialise it with the HSM's own tools")
  else if (!has('USER_PIN_INITIALIZED')) {
    problem('the crypto user has no PIN yet', 'have the security officer set one')
  }
  if (has('ERROR_STATE')) problem('the token is in error state', "see the HSM's own diagnosis")
  if (has('USER_PIN_LOCKED')) problem('the PIN of the crypto user is locked', 'have the security officer unlock it')
  if (has('USER_PIN_TO_BE_CHANGED'))
    problem('the PIN must be changed before it can be used', "change it with the HSM's own tools")
  if (has('WRITE_PROTECTED'))
    warning('the token is write-protected: no key can be made', 'lift the protection to create keys')
  if (has('USER_PIN_COUNT_LOW'))
    warning('a wrong PIN was tried lately', 'find out who tries it before the user is locked')
}

function findReasonNotToLogIn(
  patient: Patient,
  options: DoctorOptions,
  { flags, label, serial }: TokenFacts,
  draft: Draft,
): string | undefined {
  const { pinFile } = patient
  if (pinFile === undefined) return 'no PIN file was given'
  if (flags.includes('USER_PIN_LOCKED') || flags.includes('USER_PIN_TO_BE_CHANGED'))
    return 'the token does not take this PIN now'
  if (flags.includes('USER_PIN_FINAL_TRY')) {
    const remedy = "make sure of the PIN, and log in once with the HSM's own tools"
    draft.problems.push({ at: `token ${label}`, cause: 'one wrong PIN more locks the user', remedy })
    return 'one wrong PIN more would lock the user'
  }
  const missing = findFileFault(pinFile)
  if (missing !== undefined) {
    draft.problems.push({
      at: pinFile,
      cause: `the PIN file ${missing}`,
      remedy: 'create it with mode 0600, with the PIN and nothing else in it',
    })
    return 'there is no PIN file'
  }
  if (((statSync(pinFile).mode ?? 0) & 0o077) !== 0) {
    draft.warnings.push({ at: pinFile, cause: 'the PIN file is open to other users', remedy: `chmod 600 ${pinFile}` })
  }
  const latch = openLatch(options, draft)
  if (latch === undefined) return 'what PINs were refused cannot be read'
  const pin = findPinFile(pinFile)
  if (pin !== undefined && ownersOf(patient, label, serial).some((owner) => latch.isRefused(owner, pin))) {
    draft.problems.push({
      at: pinFile,
      cause: 'the token refused this PIN before; it is not tried again, since tokens lock after a few wrong PINs',
      remedy: retryRemedy(patient),
    })
    return 'the token refused this PIN before'
  }
  return undefined
}

function retryRemedy({ name }: Patient): string {
  return name === undefined
    ? 'write the right PIN into the file'
    : `write the right PIN into the file, or run hsmgate token retry-login ${name}`
}

/** The configuration names a token by label or by serial: a refusal counts under either. */
function ownersOf({ cryptoUser: user }: Patient, label: string, serial: string): readonly PinOwner[] {
  return [
    { serial, user },
    { label, user },
  ]
}

function openLatch({ latchDirectory }: DoctorOptions, draft: Draft): PinLatch | undefined {
  try {
    return openPinLatch(latchDirectory)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    draft.problems.push({
      at: latchDirectory,
      cause: `the record of refused PINs cannot be read (${code ?? message})`,
      remedy: "run the command as the gateway's own user or as root",
    })
    return undefined
  }
}

interface Step {
  /** What the process was doing, for the finding when it dies. */
  readonly doing: string
  readonly remedy: string
}

function createSteps(patient: Patient, options: DoctorOptions, draft: Draft) {
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
    const latch = openLatch(options, draft)
    for (const owner of ownersOf(patient, token.label, token.serial)) latch?.refuse(owner, pins, refused)
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

function findFileFault(path: string): string | undefined {
  try {
    return statSync(path).isFile() ? undefined : 'is not a file'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'does not exist' : `cannot be examined (${code})`
  }
}
