/** `hsmgate xks store …`: stores with their credentials, and the checks that AWS KMS makes when it connects. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { ProblemsError } from '../../problem.ts'
import type { Diagnosis } from '../../transport/xks/xks.ts'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, formatTable, formatTime, show, type Terminal } from '../terminal.ts'

interface CredentialOptions {
  readonly accessKeyId?: string
  readonly secretFile?: string
}

interface CreateOptions extends CredentialOptions {
  readonly prefix?: string
  readonly region?: string
  readonly aadMode?: string
  readonly requestsPerSecond?: string
  readonly principal?: readonly string[]
  readonly clientName?: readonly string[]
}

interface Credential {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

interface Store {
  readonly name: string
  readonly uriPath: string
  readonly region: string
  readonly aadMode: string
  readonly requestsPerSecond: number | null
  readonly principals: readonly string[]
  readonly clientNames: readonly string[]
  readonly isBlocked: boolean
  readonly createdAt: number
  readonly credentials: readonly { readonly accessKeyId: string; readonly createdAt: number }[]
  readonly keys: number
}

const collect = (value: string, all: readonly string[] = []): readonly string[] => [...all, value]

export function addXksStore(xks: Command, terminal: Terminal, readSecret: (file: string) => Promise<string>): void {
  const store = xks.command('store').description('stores: a URI path with credentials and an allow-list of keys')

  const create = withCredential(store.command('create').description('make a store; its secret is shown once'))
    .argument('<name>')
    .option('--prefix <path>', 'URI path before /kms/xks/v1 (default: / and the name; "" for none)')
    .option('--region <name>', 'Region of the AWS KMS that calls (default: the first one configured)')
    .option('--aad-mode <mode>', 'spec, or sha256 for ciphertexts of the sample proxy of AWS (default: spec)')
    .option('--requests-per-second <number>', 'quota (default: none)')
    .option('--principal <pattern>', 'let in only AWS principals like this; may be repeated', collect)
    .option('--client-name <name>', 'let in only client certificates of this name; may be repeated', collect)
  addAction<CreateOptions, [string]>(create, async (options, name) => {
    const { prefix, region, aadMode, requestsPerSecond, principal, clientName } = options
    const question = {
      store: name,
      ...{ prefix, region, aadMode },
      requestsPerSecond: requestsPerSecond === undefined ? undefined : parseCount(requestsPerSecond),
      principals: principal?.join('\n'),
      clientNames: clientName?.join('\n'),
      ...(await credentialOf(options, readSecret)),
    }
    const made = await askGateway<Store & { credential: Credential }>(
      options,
      terminal,
      'xks-store',
      'create',
      question,
    )
    show(
      terminal,
      options,
      made,
      () =>
        `${formatFields([
          ['store', made.name],
          ['URI path', made.uriPath],
          ['Region', made.region],
          ['access key id', made.credential.accessKeyId],
          ['secret access key', made.credential.secretAccessKey],
        ])}\nThe secret is shown this once.\n`,
    )
  })

  const list = store.command('list').description('list stores')
  addAction<object, []>(list, async (options) => {
    const answer = await askGateway<{ stores: readonly Store[] }>(options, terminal, 'xks-store', 'list')
    show(terminal, options, answer, ({ stores }) =>
      formatTable(
        ['NAME', 'URI PATH', 'REGION', 'AAD', 'KEYS', 'STATE', 'CREDENTIALS', 'SINCE'],
        stores.map((one) => [
          one.name,
          one.uriPath,
          one.region,
          one.aadMode,
          one.keys,
          one.isBlocked ? 'blocked' : 'open',
          one.credentials.map(({ accessKeyId }) => accessKeyId).join(' '),
          one.credentials.map(({ createdAt }) => formatTime(createdAt)).join(' '),
        ]),
      ),
    )
  })

  const remove = store.command('delete').description('delete a store that has no keys').argument('<name>')
  addAction<object, [string]>(remove, async (options, name) => {
    await askGateway(options, terminal, 'xks-store', 'delete', { store: name })
    show(terminal, options, {}, () => `${name}: deleted\n`)
  })

  const rotate = withCredential(
    store
      .command('rotate-credential')
      .description('add a second credential; the first one goes on until it is retired'),
  ).argument('<name>')
  addAction<CredentialOptions, [string]>(rotate, async (options, name) => {
    const question = { store: name, ...(await credentialOf(options, readSecret)) }
    const made = await askGateway<Credential>(options, terminal, 'xks-store', 'rotate-credential', question)
    show(
      terminal,
      options,
      made,
      () =>
        `${formatFields([
          ['access key id', made.accessKeyId],
          ['secret access key', made.secretAccessKey],
        ])}\nThe secret is shown this once. Enter both in AWS (UpdateCustomKeyStore), then retire the old credential.\n`,
    )
  })

  const retire = store
    .command('retire-credential')
    .description('refuse one of two credentials from now on')
    .argument('<name>')
    .argument('<access key id>')
  addAction<object, [string, string]>(retire, async (options, name, accessKeyId) => {
    await askGateway(options, terminal, 'xks-store', 'retire-credential', { store: name, accessKeyId })
    show(terminal, options, {}, () => `${name} ${accessKeyId}: retired\n`)
  })

  for (const [verb, done] of Object.entries({ block: 'blocked', unblock: 'open again' })) {
    const command = store.command(verb).description(`the same as xks ${verb} --store`).argument('<name>')
    addAction<object, [string]>(command, async (options, name) => {
      const answer = await askGateway<object>(options, terminal, 'xks', verb, { store: name })
      show(terminal, options, answer, () => `${name}: ${done}\n`)
    })
  }

  const doctor = store
    .command('doctor')
    .description('ask the endpoint what AWS KMS asks, and print what to enter in the AWS console')
    .argument('<name>')
    .option('--endpoint <url>', 'https:// and the host that AWS KMS will call (default: this gateway itself)')
    .option('--ca <file>', 'PEM file of a CA of your own to trust besides the public ones')
  addAction<{ readonly endpoint?: string; readonly ca?: string }, [string]>(doctor, async (options, name) => {
    const { endpoint } = options
    const ca = options.ca === undefined ? undefined : await readFile(options.ca, 'utf8')
    const found = await askGateway<Diagnosis>(options, terminal, 'xks-store', 'doctor', { store: name, endpoint, ca })
    show(terminal, options, found, formatDiagnosis)
    const problems = found.findings
      .filter(({ verdict }) => verdict === 'failed')
      .map(({ step, detail, remedy = '' }) => ({ at: step, cause: detail, remedy }))
    if (problems.length > 0) throw new ProblemsError(problems)
  })
}

function withCredential(command: Command): Command {
  return command
    .option('--access-key-id <id>', 'of a credential that is there already (default: a new one)')
    .option('--secret-file <file>', 'file with its secret access key and nothing else')
}

async function credentialOf(
  { accessKeyId, secretFile }: CredentialOptions,
  readSecret: (file: string) => Promise<string>,
): Promise<Partial<Credential>> {
  return {
    ...(accessKeyId === undefined ? {} : { accessKeyId }),
    ...(secretFile === undefined ? {} : { secretAccessKey: await readSecret(secretFile) }),
  }
}

function parseCount(text: string): number {
  const count = Number(text)
  if (Number.isSafeInteger(count)) return count
  throw new ProblemsError([{ at: '--requests-per-second', cause: 'is not a whole number', remedy: 'give one' }])
}

const marks = { ok: 'ok  ', note: 'NOTE', failed: 'FAIL' } as const

function formatDiagnosis({ findings, console }: Diagnosis): string {
  const lines = findings.map(
    ({ step, verdict, detail, remedy }) =>
      `${marks[verdict]}  ${step}: ${detail}${remedy === undefined ? '' : `\n      ${remedy}`}`,
  )
  const fields = formatFields(Object.entries(console))
  return `${lines.join('\n')}\n\nIn the AWS console, Custom key stores, External key stores, Create:\n${fields}`
}
