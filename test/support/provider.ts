/** Builds the OpenSSL provider and the programs of its tests, and runs programs with it. One build at a time on a machine. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
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

/** Runs a mode of test/native/provider/codec.c. */
export function runCodec(args: readonly string[], kind: ProviderKind, input = ''): Promise<CommandResult> {
  return run(path.join(build, `provider-${kind}/codec`), args, { input: Buffer.from(input) })
}

/** The file that OPENSSL_CONF names: deploy/openssl/openssl.cnf for the module and the endpoints given. */
export function writeOpensslConf(folder: string, template: string, endpoints: string): string {
  const place = path.join(folder, 'openssl.cnf')
  const text = template
    .replace('/usr/lib/hsmgate/hsmgate.so', providerModule)
    .replace('/run/hsmgate/sign.sock', endpoints)
  writeFileSync(place, text)
  return place
}
