/**
 * `hsmgate doctor`: examines a PKCS#11 module and a token of it, offline, in processes that are thrown away. Of a configured token, or of
 * any module before there is a configuration.
 */
import path from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import type { Config } from '../../config/config.ts'
import type { DoctorOptions, Patient } from '../../hsm/diagnosis.ts'
import { diagnose } from '../../hsm/doctor.ts'
import { type Problem, ProblemsError } from '../../problem.ts'
import { addAction } from '../action.ts'
import { formatDiagnosis, type Report, reportOf } from '../diagnosis.ts'
import { loadEffectiveConfig } from '../effective-config.ts'
import { type CommonOptions, show, type Terminal } from '../terminal.ts'

interface Options {
  readonly token?: string
  readonly module?: string
  readonly initArgs?: string
  readonly label?: string
  readonly serial?: string
  readonly pinFile?: string
  readonly cryptoUser?: string
  readonly profile?: string
  readonly stepLimit: number
  readonly sessions: number
  readonly measure: number
}

const aboutModule = ['initArgs', 'label', 'serial', 'pinFile', 'cryptoUser', 'profile'] as const
const maxStepSeconds = 600
const maxSessions = 64
const maxMeasureSeconds = 60

export function addDoctor(program: Command, terminal: Terminal): void {
  const command = program
    .command('doctor')
    .description('examine a PKCS#11 module and its token: what works, what does not and why, how fast; works offline')
    .option('--token <name>', 'a token of the configuration (default: its only one)')
    .option('--module <path>', 'a module that needs no configuration')
    .option('--label <label>', 'with --module: label of the token')
    .option('--serial <number>', 'with --module: serial number of the token')
    .option('--pin-file <file>', 'with --module: file with the PIN; without it nothing that needs a login is tried')
    .option('--crypto-user <name>', 'with --module: user name, for PINs of the form user:password')
    .option('--profile <vendor>', 'with --module: whose peculiarities to allow for (default: generic)')
    .option('--init-args <text>', 'with --module: library parameters for C_Initialize, for modules that need them')
    .option('--sessions <n>', 'sessions to measure with at most', wholeNumber(1, maxSessions), 8)
    .option('--measure <seconds>', 'how long to measure rates; 0: not at all', wholeNumber(0, maxMeasureSeconds), 3)
    .option('--step-limit <seconds>', 'how long one step may take', wholeNumber(1, maxStepSeconds), 60)
  addAction<Options, []>(command, async (options) => {
    const { patient, latchDirectory } = choosePatient(options, terminal)
    const doctorOptions: DoctorOptions = {
      latchDirectory,
      stepLimitMs: options.stepLimit * 1000,
      sessions: options.sessions,
      measureMs: options.measure * 1000,
    }
    const report: Report = reportOf(await diagnose(patient, doctorOptions))
    show(terminal, options, report, formatDiagnosis)
    if (report.problems.length > 0) throw new ProblemsError(report.problems)
  })
}

function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= min && value <= max) return value
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`)
  }
}

/** @throws ProblemsError */
function choosePatient(
  options: Options & CommonOptions,
  terminal: Terminal,
): { patient: Patient; latchDirectory: string } {
  const { module, token } = options
  if (module !== undefined && token !== undefined) throw usage('give either --token or --module')
  if (module !== undefined && options.label !== undefined && options.serial !== undefined) {
    throw usage('give either --label or --serial')
  }
  if (module === undefined) {
    const stray = aboutModule.find((name) => options[name] !== undefined)
    if (stray !== undefined) throw usage('options about a module go with --module; a configured token has its own')
    return configured(loadEffectiveConfig(options, terminal), token)
  }
  const { initArgs, label, serial, pinFile, cryptoUser, profile = 'generic' } = options
  const patient: Patient = {
    // a name without a folder is the loader's to find
    module: module.includes('/') ? path.resolve(module) : module,
    initArgs,
    label,
    serial,
    ...(pinFile === undefined ? {} : { pinFile: path.resolve(pinFile) }),
    cryptoUser,
    profile,
    env: Object.fromEntries(Object.entries(terminal.environment).filter(([, value]) => value !== undefined)) as Record<
      string,
      string
    >,
  }
  return { patient, latchDirectory: personalState(options, terminal) }
}

function configured(config: Config, name: string | undefined) {
  const names = Object.keys(config.tokens)
  const chosen = name ?? (names.length === 1 ? names[0] : undefined)
  const token = chosen === undefined ? undefined : config.tokens[chosen]
  if (chosen === undefined || token === undefined || !Object.hasOwn(config.tokens, chosen)) {
    const cause = name === undefined ? 'there are several tokens' : `there is no token '${name}'`
    throw new ProblemsError([{ at: 'tokens', cause, remedy: `name one with --token: ${names.join(', ')}` }])
  }
  return { patient: { ...token, name: chosen }, latchDirectory: config.stateDirectory }
}

/** Refused PINs are remembered where the gateway of this configuration does; without one, with the person. */
function personalState(options: CommonOptions, terminal: Terminal): string {
  const { XDG_STATE_HOME: state, HOME: home } = terminal.environment
  try {
    return loadEffectiveConfig(options, terminal).stateDirectory
  } catch (failure) {
    if (options.config !== undefined) throw failure
    return path.join(state || path.join(home || '/', '.local/state'), 'hsmgate')
  }
}

function usage(cause: string): ProblemsError {
  const problem: Problem = { at: 'hsmgate doctor', cause, remedy: 'hsmgate doctor --help lists the options' }
  return new ProblemsError([problem])
}
