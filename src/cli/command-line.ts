/**
 * The face of the command line: words → one command → exit code. Each file in commands/ adds one command (with its verbs) to the
 * program; the options --config and --json belong to all of them.
 */
import { Command, CommanderError } from 'commander'
import packageJson from '../../package.json' with { type: 'json' }
import { addAudit } from './commands/audit.ts'
import { addCheck } from './commands/check.ts'
import { addClock } from './commands/clock.ts'
import { addDev } from './commands/dev.ts'
import { addDoctor } from './commands/doctor.ts'
import { addInit } from './commands/init.ts'
import { addKey } from './commands/key.ts'
import { addPolicy } from './commands/policy.ts'
import { addPrincipal } from './commands/principal.ts'
import { addRelay } from './commands/relay.ts'
import { addRole } from './commands/role.ts'
import { addServe } from './commands/serve.ts'
import { addTls } from './commands/tls.ts'
import { addToken } from './commands/token.ts'
import { addXks } from './commands/xks.ts'
import { reportFailure } from './failure.ts'
import { type CommonOptions, exitCodes, type Terminal } from './terminal.ts'

const footer = `
The configuration is the file that --config names, else $HSMGATE_CONFIG, else .hsmgate/config.json, else /etc/hsmgate/config.json.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no gateway runs.`

/** Runs the command that `words` name, and answers its exit code. Never throws. */
export async function runCommandLine(words: readonly string[], terminal: Terminal): Promise<number> {
  const program = createProgram(terminal)
  try {
    await program.parseAsync([...words], { from: 'user' })
    return exitCodes.ok
  } catch (failure) {
    if (failure instanceof CommanderError) return failure.exitCode === 0 ? exitCodes.ok : exitCodes.usage
    return reportFailure(terminal, program.opts<CommonOptions>(), failure)
  }
}

function createProgram(terminal: Terminal): Command {
  const program = new Command('hsmgate')
    .description('HSM gateway: a KMS-compatible API in front of any PKCS#11 module.')
    .version(packageJson.version, '--version', 'print the version')
    .helpOption('--help', 'print this help')
    .option('--config <file>', 'configuration file')
    .option('--json', 'print JSON')
    .addHelpText('after', footer)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: terminal.out,
      writeErr: terminal.err,
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .showHelpAfterError('(add --help to see what there is)')
    .exitOverride()
  for (const add of [
    addDev,
    addInit,
    addServe,
    addCheck,
    addDoctor,
    addPrincipal,
    addRole,
    addPolicy,
    addKey,
    addToken,
    addTls,
    addClock,
    addXks,
    addAudit,
    addRelay,
  ])
    add(program, terminal)
  return program
}
