/** Builds the OpenSSL provider and the programs of its tests, and runs programs with it. One build at a time on a machine. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type CommandResult, run } from './command.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const build = path.join(root, 'native/build')

/** As it is, under AddressSanitizer with UndefinedBehaviorSanitizer, or under ThreadSanitizer. */
export type ProviderKind = 'plain' | 'asan' | 'tsan'

export const providerModule = path.join(build, 'hsmgate.so')

/** A build of all kinds from nothing takes half a minute on one idle core. */
export function buildProvider(): void {
  mkdirSync(build, { recursive: true })
  const made = spawnSync(
    'flock',
    [path.join(build, 'provider.lock'), 'make', '-s', '--directory=native', 'provider', 'provider-tests'],
    { cwd: root, encoding: 'utf8' },
  )
  if (made.status !== 0) throw new Error(`${made.stdout}${made.stderr}`)
}

export interface DriverOptions {
  readonly kind?: ProviderKind
  readonly endpoints: string
  readonly env?: Readonly<Record<string, string>>
  /** A program that runs it. */
  readonly prefix?: readonly string[]
}

/** Runs a mode of test/native/provider/driver.c. */
export function runDriver(args: readonly string[], options: DriverOptions): Promise<CommandResult> {
  const folder = path.join(build, `provider-${options.kind ?? 'plain'}`)
  const [program = '', ...rest] = [...(options.prefix ?? []), path.join(folder, 'driver'), ...args]
  return run(program, rest, {
    env: {
      PATH: process.env.PATH ?? '',
      PROVIDER_FOLDER: folder,
      HSMGATE_ENDPOINTS: options.endpoints,
      UBSAN_OPTIONS: 'print_stacktrace=1',
      TSAN_OPTIONS: 'halt_on_error=1',
      ...options.env,
    },
  })
}

/** What a program of Debian needs to run with the provider's build for a sanitizer. */
export interface Sanitized {
  readonly env: Readonly<Record<string, string>>
  /** What it found in every process: with ThreadSanitizer what the provider has a part in. Empty when nothing. */
  reports(): string
}

/** `folder` gets the files; processes of every user write there. */
export function sanitize(kind: 'asan' | 'tsan', folder: string, template: string, endpoints: string): Sanitized {
  const { stdout } = spawnSync('gcc', [`-print-file-name=lib${kind}.so`], { encoding: 'utf8' })
  const found = mkdtempSync(path.join(folder, `${kind}-`))
  chmodSync(found, 0o777)
  const options = `log_path=${found}/report`
  return {
    env: {
      OPENSSL_CONF: writeOpensslConf(folder, template, endpoints, kind),
      LD_PRELOAD: stdout.trim(),
      // Servers end without releasing everything.
      ASAN_OPTIONS: `${options}:detect_leaks=0`,
      UBSAN_OPTIONS: `${options}:print_stacktrace=1`,
      TSAN_OPTIONS: options,
    },
    reports() {
      const text = readdirSync(found)
        .map((name) => readFileSync(path.join(found, name), 'utf8'))
        .join('')
      if (kind === 'asan') return text.replaceAll(stackWarning, '')
      const races = text.split(/^={18}$/m).filter((report) => report.includes('hsmgate.so'))
      return races.join('')
    },
  }
}

/** Of jobs, whose stacks AddressSanitizer does not know (https://github.com/google/sanitizers/issues/189). */
export const stackWarning = /^.*__asan_handle_no_return[\s\S]*?\/issues\/189\n/gm

/** Runs a mode of test/native/provider/codec.c. */
export function runCodec(args: readonly string[], kind: ProviderKind, input = ''): Promise<CommandResult> {
  return run(path.join(build, `provider-${kind}/codec`), args, { input: Buffer.from(input) })
}

/** The file that OPENSSL_CONF names: deploy/openssl/openssl.cnf for the module and the endpoints given. */
export function writeOpensslConf(
  folder: string,
  template: string,
  endpoints: string,
  kind: ProviderKind = 'plain',
): string {
  const place = path.join(folder, kind === 'plain' ? 'openssl.cnf' : `openssl-${kind}.cnf`)
  const module = kind === 'plain' ? providerModule : path.join(build, `provider-${kind}/hsmgate.so`)
  const text = template.replace('/usr/lib/hsmgate/hsmgate.so', module).replace('/run/hsmgate/sign.sock', endpoints)
  writeFileSync(place, text)
  return place
}
