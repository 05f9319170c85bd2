/** `hsmgate relay …`: the process on a web host that brings signatures of local TLS servers to gateways on other hosts. */
import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import path from 'node:path'
import type { Command } from 'commander'
import { ProblemsError } from '../../problem.ts'
import { addAction } from '../action.ts'
import { createFile, findText, publicFileMode, replaceFile } from '../files.ts'
import { formatFields, formatTime, printable, show, type Terminal } from '../terminal.ts'

interface EnrollOptions {
  readonly gateway: readonly string[]
  readonly out: string
  readonly name?: string
}

const defaultConfig = '/etc/hsmgate/relay.json'
const collect = (value: string, values: readonly string[] = []) => [...values, value]

export function addRelay(program: Command, terminal: Terminal): void {
  const relay = program.command('relay').description('the relay of a web host: signatures from gateways on other hosts')

  const enroll = relay
    .command('enroll')
    .description('make the key, the request for a certificate and the configuration of a relay; again to renew')
    .requiredOption('--gateway <host:port>', 'a gateway; repeat it for each', collect)
    .requiredOption('--out <folder>', 'where the files go, such as /etc/hsmgate')
    .option('--name <name>', 'name of the relay (default: the name of this host)')
  addAction<EnrollOptions, []>(enroll, async (options) => {
    const { enrolmentFiles, makeRelayConfig, makeRelayKey, makeRelayRequest } = await import('../../relay/enrolment.ts')
    const name = options.name ?? hostname()
    if (!/^[\w.@-]{1,64}$/.test(name)) {
      const remedy = 'use 1 to 64 letters, digits and any of _.@-'
      throw new ProblemsError([{ at: '--name', cause: 'is no name for a relay', remedy }])
    }
    const document = makeRelayConfig(options.gateway)
    const folder = path.resolve(options.out)
    const place = (file: string) => path.join(folder, file)
    const key = place(enrolmentFiles.key)
    const written = await writing(folder, async () => {
      await mkdir(folder, { recursive: true, mode: 0o755 })
      const made = (await createFile(key, makeRelayKey())) ? [key] : []
      const { request, digest } = await makeRelayRequest((await findText(key)) ?? '', key, name)
      await replaceFile(place(enrolmentFiles.request), request, publicFileMode)
      if (await createFile(place(enrolmentFiles.config), document)) made.push(place(enrolmentFiles.config))
      return { made: [...made, place(enrolmentFiles.request)], digest }
    })
    const value = { name, digest: written.digest, files: written.made }
    show(terminal, options, value, () =>
      [
        formatFields([
          ['relay', name],
          ['digest', written.digest],
          ...written.made.map((file) => ['written', file] as const),
        ]),
        'next, on a gateway (compare the digest that it shows):\n',
        `  hsmgate tls relay approve --csr ${enrolmentFiles.request} --name ${name} --out ${enrolmentFiles.certificate}\n`,
        `then bring ${enrolmentFiles.certificate} here as ${printable(place(enrolmentFiles.certificate))}, the authority of the gateway's own\n`,
        `certificate as ${printable(place(enrolmentFiles.ca))}, and start \`hsmgate relay run --config ${printable(place(enrolmentFiles.config))}\`\n`,
      ].join(''),
    )
  })

  const run = relay
    .command('run')
    .description(
      'run the relay that --config describes (default: /etc/hsmgate/relay.json); SIGTERM or Ctrl-C drains and ends it, SIGHUP takes over a renewed certificate, SIGUSR1 writes its counters to the log',
    )
  addAction<object, []>(run, async (options) => {
    const { runRelay } = await import('../run-relay.ts')
    const file = options.config ?? defaultConfig
    await runRelay(terminal, file, ({ endpoints }, { subject, digest, notAfter }) => {
      const value = { ready: true, endpoints, subject, digest, validUntil: new Date(notAfter).toISOString() }
      show(
        terminal,
        options,
        value,
        () =>
          `hsmgate relays as ${printable(subject)}, valid until ${formatTime(notAfter)}\n${formatFields(
            endpoints.map((endpoint) => ['  socket', endpoint] as const),
          )}`,
      )
    })
  })

  const check = relay
    .command('check')
    .description('look at the configuration, the certificate and whether each gateway takes it')
  addAction<object, []>(check, async (options) => {
    const { checkRelay } = await import('../relay-check.ts')
    const found = await checkRelay(options.config ?? defaultConfig, terminal.environment)
    const { subject, digest, notAfter, gateways } = found
    show(terminal, options, found, () =>
      formatFields([
        ['relay', subject],
        ['digest', digest],
        ['valid until', formatTime(notAfter)],
        ...gateways.map(({ gateway, problem }) => [gateway, problem ?? 'takes the certificate'] as const),
      ]),
    )
    if (gateways.every(({ problem }) => problem === undefined)) return
    throw new ProblemsError(
      gateways
        .filter(({ problem }) => problem !== undefined)
        .map(({ gateway, problem = '' }) => ({
          at: gateway,
          cause: problem,
          remedy: 'docs/relay.md says what each of these means',
        })),
    )
  })
}

async function writing<T>(folder: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (typeof code !== 'string' || !code.startsWith('E')) throw cause
    const remedy = 'name a folder that you may write to'
    throw new ProblemsError([{ at: folder, cause: `cannot be written to (${code})`, remedy }], { cause })
  }
}
