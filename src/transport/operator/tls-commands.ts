/** Commands on keys of TLS servers: the keys, the tokens that are bound to them, their certificates, and the relays. */
import { deadlineIn } from '../../call.ts'
import type { TlsBindingRecord } from '../../catalog/catalog.ts'
import { makeCertificateRequest, makeSelfSignedCertificate } from '../../certificates.ts'
import { GatewayError } from '../../error.ts'
import type { KeyService, Locale } from '../../keys/keys.ts'
import type { RelayAdministration } from '../../relays.ts'
import type { TlsAdministration } from '../../tls-administration.ts'
import { parseAlias } from './alias-option.ts'
import { command, type Input, type OperatorCommand } from './operator-command.ts'

export interface TlsCommandParts {
  readonly tls: TlsAdministration
  readonly relays: RelayAdministration
  readonly keys: KeyService
  readonly partition: string
  readonly defaultAccount: string
  readonly defaultRegion: string
}

const timeoutMs = 60_000
/** AWS KMS API Reference: CreateKey. */
const descriptionChars = 8192
const maxSelfSignedDays = 825

export function createTlsCommands(parts: TlsCommandParts): readonly OperatorCommand[] {
  const { tls, relays, keys, partition, defaultAccount, defaultRegion } = parts
  const account = (input: Input): string => String(input.account ?? defaultAccount)
  const localeOf = (input: Input): Locale => ({
    partition,
    account: account(input),
    region: String(input.region ?? defaultRegion),
  })
  const place = { account: 'string', region: 'string' } as const
  const optionalPlace = Object.keys(place)

  /** By name or digest; what is neither is refused with the binding. */
  const digestOfRelay = (relay: string): string => relays.list().find(({ name }) => name === relay)?.digest ?? relay

  async function certificateKey(input: Input) {
    const entry = await tls.getKey(String(input.key), localeOf(input))
    const deadline = deadlineIn(timeoutMs)
    return {
      spec: entry.key.spec,
      publicKey: keys.publicKey(entry),
      sign: (tbs: Uint8Array) => keys.signCertificate(entry, tbs, deadline),
    }
  }

  return [
    command(
      'tls',
      'create-key',
      {
        members: { ...place, spec: 'string', alias: 'string', description: 'string', group: 'string' },
        optional: [...optionalPlace, 'alias', 'description', 'group'],
      },
      async (input) => {
        const { description = '', group } = input
        if (String(description).length > descriptionChars) {
          throw invalid(`A description has at most ${descriptionChars} characters.`)
        }
        const alias = parseAlias(input.alias)
        const request = {
          spec: String(input.spec),
          description: String(description),
          ...(alias === undefined ? {} : { alias }),
          ...(group === undefined ? {} : { group: String(group) }),
        }
        const { key } = await tls.createKey(request, localeOf(input), deadlineIn(timeoutMs))
        const { keyId, spec } = key
        return { arn: keys.keyArn(key), keyId, spec, ...(alias === undefined ? {} : { alias }) }
      },
    ),
    command(
      'tls',
      'bind',
      {
        members: {
          ...place,
          name: 'string',
          key: 'string',
          users: 'string',
          anyUser: 'boolean',
          policies: 'string',
          relays: 'string',
          rate: 'integer',
          concurrency: 'integer',
        },
        optional: [...optionalPlace, 'users', 'anyUser', 'relays', 'rate', 'concurrency'],
        secretAnswer: ['token', 'publicKey'],
      },
      async (input) => {
        const users = list(input.users)
        if (input.anyUser === true && users.length > 0) throw invalid('Name users, or any user, not both.')
        const request = {
          name: String(input.name),
          key: String(input.key),
          users: input.anyUser === true ? ('any' as const) : users.map(parseUid),
          policies: list(input.policies),
          relays: list(input.relays).map(digestOfRelay),
          ...(input.rate === undefined ? {} : { ratePerSecond: Number(input.rate) }),
          ...(input.concurrency === undefined ? {} : { concurrency: Number(input.concurrency) }),
        }
        const { binding, publicKey, token } = await tls.bind(request, localeOf(input))
        const answer = {
          ...describe(keys, partition, binding),
          publicKey: publicKey.toString('base64'),
          token: token.toString('base64'),
        }
        token.fill(0)
        return answer
      },
    ),
    command(
      'tls',
      'list',
      { members: { account: 'string' }, optional: ['account'], readOnly: true },
      async (input) => ({
        bindings: (await tls.list(input.account === undefined ? undefined : String(input.account))).map((binding) =>
          describe(keys, partition, binding),
        ),
      }),
    ),
    command('tls', 'revoke', { members: { name: 'string', account: 'string' }, optional: ['account'] }, (input) =>
      tls.revoke(account(input), String(input.name)),
    ),
    command(
      'tls',
      'csr',
      {
        members: { ...place, key: 'string', subject: 'string', san: 'string' },
        optional: [...optionalPlace, 'subject', 'san'],
      },
      async (input) => ({ request: await makeCertificateRequest(await certificateKey(input), namesOf(input)) }),
    ),
    command(
      'tls',
      'self-signed',
      {
        members: { ...place, key: 'string', subject: 'string', san: 'string', days: 'integer' },
        optional: [...optionalPlace, 'subject', 'san'],
      },
      async (input) => {
        const days = Number(input.days)
        if (days < 1 || days > maxSelfSignedDays) throw invalid(`days is from 1 to ${maxSelfSignedDays}.`)
        const key = await certificateKey(input)
        return { certificate: await makeSelfSignedCertificate(key, namesOf(input), days, Date.now()) }
      },
    ),
    command('tls-relay', 'approve', { members: { name: 'string', request: 'string', days: 'integer' } }, (input) =>
      relays.approve(String(input.name), String(input.request), Number(input.days)),
    ),
    command('tls-relay', 'list', { members: {}, readOnly: true }, async () => ({ relays: relays.list() })),
    command('tls-relay', 'revoke', { members: { name: 'string' } }, (input) => relays.revoke(String(input.name))),
    // not a read: it makes the authority when there is none
    command('tls-relay', 'authority', { members: {} }, async () => ({
      certificate: await relays.authorityCertificate(),
    })),
  ]
}

function describe(keys: KeyService, partition: string, binding: TlsBindingRecord) {
  const { account, region, name, keyId, policies, users, relays, ratePerSecond, concurrency, createdAt } = binding
  return {
    name,
    principal: `arn:${partition}:iam::${account}:user/hsmgate/tls/${name}`,
    key: keys.keyArn({ account, region, keyId }),
    spkiDigest: binding.spkiDigest.toString('hex'),
    tokenDigest: binding.tokenDigest.toString('hex'),
    policies,
    users,
    relays,
    ratePerSecond,
    concurrency,
    createdAt,
  }
}

function namesOf({ subject, san }: Input) {
  return { ...(subject === undefined ? {} : { subject: String(subject) }), san: list(san) }
}

function list(text: Input[string]): readonly string[] {
  if (text === undefined) return []
  return String(text)
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
}

function parseUid(text: string): number {
  if (/^\d{1,10}$/.test(text)) return Number(text)
  throw invalid(`${text} is not the number of a user.`)
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}
