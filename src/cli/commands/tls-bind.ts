/**
 * `hsmgate tls bind`: a new capability token for a key, written into a key reference and nowhere else. The token comes over the operator socket;
 * when the file cannot be written it is revoked at once, since nobody would ever have it.
 */
import type { Command } from 'commander'
import { offloadPolicies } from '../../authenticate/tls-bindings.ts'
import { ProblemsError } from '../../problem.ts'
import { encodeReferencePem } from '../../tls-reference.ts'
import { addAction } from '../action.ts'
import { findUser } from '../machine-users.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, show, type Terminal } from '../terminal.ts'
import { collectNames, type PlaceOptions, refuseExisting, withPlace, writeNewFile } from '../tls-options.ts'

interface BindOptions extends PlaceOptions {
  readonly name: string
  readonly key: string
  readonly user: readonly string[]
  readonly anyUser?: true
  readonly policy: readonly string[]
  readonly relay: readonly string[]
  readonly rate?: string
  readonly concurrency?: string
  readonly endpoint?: string
  readonly out: string
  readonly force?: true
}

/** As the gateway tells of it. */
export interface Binding {
  readonly name: string
  readonly principal: string
  readonly key: string
  readonly spkiDigest: string
  readonly tokenDigest: string
  readonly policies: readonly string[]
  readonly users: readonly number[] | 'any'
  readonly relays: readonly string[]
  readonly ratePerSecond: number | null
  readonly concurrency: number | null
  readonly createdAt: number
}

type MadeBinding = Binding & { readonly publicKey: string; readonly token: string }

const defaultPolicies = ['tls13-server', 'tls12-server-ecdhe']

export function addTlsBind(tls: Command, terminal: Terminal): void {
  const bind = withPlace(tls.command('bind').description('let a server sign with a key: writes its key reference'))
    .requiredOption('--name <name>', 'name of the binding, for lists, policies and the audit')
    .requiredOption('--key <key>', 'key id, ARN or alias')
    .option('--user <user>', 'user that the server runs as, by name or number; may be repeated', collectNames, [])
    .option('--any-user', 'any user of this machine')
    .option(
      '--policy <policies>',
      `what it may sign: ${offloadPolicies.join(', ')} (default: ${defaultPolicies.join(',')})`,
      collectNames,
      [],
    )
    .option(
      '--relay <relay>',
      'a relay that may bring its requests, by name or digest; may be repeated',
      collectNames,
      [],
    )
    .option('--rate <number>', 'most signatures in a second')
    .option('--concurrency <number>', 'most signatures at one time')
    .option('--endpoint <name>', 'endpoint of the provider that it is to use (default: the first one)')
    .requiredOption('--out <file>', 'where the key reference goes')
    .option('--force', 'replace the file when it is there')
  addAction<BindOptions, []>(bind, async (options) => {
    const { name, key, account, region, out, endpoint } = options
    const users = await Promise.all(options.user.map(findUid))
    await refuseExisting(out, options.force === true)
    const policies = options.policy.length === 0 ? defaultPolicies : options.policy
    const made = await askGateway<MadeBinding>(options, terminal, 'tls', 'bind', {
      ...{ name, key, account, region },
      ...(users.length === 0 ? {} : { users: users.join(',') }),
      ...(options.anyUser === true ? { anyUser: true } : {}),
      policies: policies.join(','),
      ...(options.relay.length === 0 ? {} : { relays: options.relay.join(',') }),
      ...parseLimit('rate', options.rate),
      ...parseLimit('concurrency', options.concurrency),
    })
    const { publicKey, token, ...binding } = made
    try {
      const reference = encodeReferencePem({
        publicKey: Buffer.from(publicKey, 'base64'),
        token: Buffer.from(token, 'base64'),
        comment: `hsmgate tls binding ${name}`,
        ...(endpoint === undefined ? {} : { endpoint }),
      })
      await writeNewFile(out, reference, options.force === true)
    } catch (cause) {
      await askGateway(options, terminal, 'tls', 'revoke', { name, account })
      throw cause
    }
    show(terminal, options, { ...binding, file: out }, formatBinding)
  })
}

function formatBinding(binding: Binding & { readonly file: string }): string {
  const { name, principal, key, policies, users, relays, ratePerSecond, concurrency, file } = binding
  return formatFields([
    ['binding', name],
    ['principal', principal],
    ['key', key],
    ['policies', policies.join(', ')],
    ['users', users === 'any' ? 'any' : users.join(', ')],
    ['relays', relays.length === 0 ? 'none' : relays.join(', ')],
    ...(ratePerSecond === null ? [] : [['rate', `${ratePerSecond} a second`] as const]),
    ...(concurrency === null ? [] : [['at once', concurrency] as const]),
    ['reference', file],
  ])
}

function parseLimit(name: string, text: string | undefined): Readonly<Record<string, number>> {
  if (text === undefined) return {}
  if (/^\d{1,9}$/.test(text)) return { [name]: Number(text) }
  const remedy = 'give a whole number, such as 500'
  throw new ProblemsError([{ at: `--${name}`, cause: `${text} is no number`, remedy }])
}

/** By name on this machine, or the number of the uid on the machine of the server. */
async function findUid(user: string): Promise<number> {
  return /^\d{1,10}$/.test(user) ? Number(user) : (await findUser(user)).uid
}
