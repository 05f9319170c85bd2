/**
 * `hsmgate dev`: from nothing to a gateway that has proved itself. Completes the development folder, opens the gateway, makes the
 * administrator, proves the KMS door, says how to use it, and runs until it is told to stop.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import packageJson from '../../../package.json' with { type: 'json' }
import type { Config } from '../../config/config.ts'
import type { Gateway } from '../../gateway.ts'
import { addAction } from '../action.ts'
import { administratorName, ensureAdministrator } from '../administrator.ts'
import { formatAwsCommand, formatTlsCommand } from '../aws-command.ts'
import type { Credentials } from '../credentials-file.ts'
import { loadDevelopmentConfig } from '../development-config.ts'
import { completeDevelopmentFolder, type Development, placeDevelopment } from '../development-folder.ts'
import { openDevelopmentLog } from '../development-log.ts'
import { runGateway } from '../run-gateway.ts'
import { type Proof, proveGateway } from '../self-proof.ts'
import { type CommonOptions, formatFields, show, type Terminal } from '../terminal.ts'
import { formatEndpoints } from './serve.ts'

interface DevOptions extends CommonOptions {
  readonly directory?: string
  readonly kmsPort?: number
  readonly xksPort?: number
  readonly operatorPort?: number
}

export function addDev(program: Command, terminal: Terminal): void {
  const command = program
    .command('dev')
    .description('make a development gateway if there is none, prove it and run it')
    .option('--directory <folder>', 'its folder (default: .hsmgate)')
    .option('--kms-port <port>', 'port of the KMS door for this run; 0: a free one', parsePort)
    .option(
      '--xks-port <port>',
      'port of the XKS door for this run; 0: a free one (default: free if --kms-port is)',
      parsePort,
    )
    .option('--operator-port <port>', 'port of the operator door for this run; 0: a free one', parsePort)
  addAction<DevOptions, []>(command, (options) => runDevelopment(terminal, options))
}

function parsePort(word: string): number {
  const port = Number(word)
  if (/^\d{1,5}$/.test(word) && port <= 65_535) return port
  throw new InvalidArgumentError('It must be a number from 0 to 65535.')
}

async function runDevelopment(terminal: Terminal, options: DevOptions): Promise<void> {
  const development = placeDevelopment(options, terminal.environment)
  const { made } = await completeDevelopmentFolder(development)
  if (made.length > 0 && !options.json) terminal.out(`made ${made.map((file) => relative(file)).join(', ')}\n`)

  const { openGateway } = await import('../../gateway.ts')
  using log = openDevelopmentLog(logFileOf(development), terminal)
  await runGateway(terminal, {
    load: () => loadDevelopmentConfig(development.configFile, options, terminal.environment),
    open: (config) => openGateway(config, { log }),
    hangUp: 'stop',
    async ready(gateway, config) {
      await becomeReady(terminal, options, development, gateway, config)
      log.show()
    },
  })
}

async function becomeReady(
  terminal: Terminal,
  options: DevOptions,
  development: Development,
  gateway: Gateway,
  config: Config,
): Promise<void> {
  const { administration, endpoints } = gateway
  const credentialsFile = path.join(development.directory, 'credentials')
  const { credentials, notes } = await ensureAdministrator({
    administration,
    account: config.accounts[0]!,
    regions: config.regions,
    credentialsFile,
    now: Date.now,
  })
  for (const note of notes) terminal.err(`${note}\n`)
  const proof = await prove(development, config, endpoints.kms, credentials)
  if (proof === undefined) terminal.err('self-test skipped: there is no KMS door, or no credentials for it\n')

  const report = {
    ready: true,
    endpoints,
    credentialsFile,
    logFile: logFileOf(development),
    auditDirectory: config.audit.directory,
    selfTest: proof?.steps ?? null,
  }
  show(terminal, options, report, () => {
    const aws =
      endpoints.kms !== undefined && credentials !== undefined
        ? formatAwsCommand(
            { endpoint: endpoints.kms, credentialsFile, region: credentials.region, config },
            terminal.environment,
          )
        : undefined
    const tls = config.listen.offload === null ? undefined : formatTlsCommand(config.file)
    return formatWelcome(report, config, proof, { aws, tls })
  })
}

async function prove(
  development: Development,
  config: Config,
  endpoint: string | undefined,
  credentials: Credentials | undefined,
): Promise<Proof | undefined> {
  if (endpoint === undefined || credentials === undefined) return undefined
  const tls = config.listen.kms?.tls
  return proveGateway({
    endpoint,
    credentials,
    stateFile: path.join(development.directory, 'self-test.json'),
    ...(tls === undefined ? {} : { certificate: readFileSync(tls.certificateFile, 'utf8') }),
  })
}

interface Report {
  readonly endpoints: Gateway['endpoints']
  readonly credentialsFile: string
  readonly logFile: string
  readonly auditDirectory: string
}

/** The file, or the server. */
function placeOf(catalog: Config['catalog']): string {
  return catalog.kind === 'sqlite'
    ? relative(catalog.file)
    : `${catalog.postgresql.database} on ${catalog.postgresql.host}`
}

function formatWelcome(
  report: Report,
  config: Config,
  proof: Proof | undefined,
  commands: { readonly aws: string | undefined; readonly tls: string | undefined },
): string {
  const tokens = Object.entries(config.tokens).map(([name, token]) => `token ${name} (${path.basename(token.module)})`)
  const places = formatFields([
    ['  keys', `${tokens.join(', ')}; catalog ${placeOf(config.catalog)}`],
    ['  credentials', `${relative(report.credentialsFile)} (${administratorName}, profile default)`],
    ['  log', relative(report.logFile)],
    ['  audit', relative(report.auditDirectory)],
  ])
  return [
    ...(proof === undefined ? [] : [`self-test: ${proof.steps.join(', ')}: ok (${Math.round(proof.elapsedMs)} ms)\n`]),
    `\nhsmgate ${packageJson.version} is ready\n${formatEndpoints(report.endpoints)}\n${places}`,
    ...(commands.aws === undefined ? [] : [`\nTry it in another terminal:\n  ${commands.aws}\n`]),
    ...(commands.tls === undefined ? [] : [`\nA TLS server whose key stays in the module:\n  ${commands.tls}\n`]),
    '\nCtrl-C stops it; the keys stay.\n',
  ].join('')
}

const logFileOf = ({ directory }: Development): string => path.join(directory, 'gateway.log')

/** As people would write it from here. */
function relative(file: string): string {
  const short = path.relative('', file)
  return short === '' || short.startsWith('..') ? file : short
}
