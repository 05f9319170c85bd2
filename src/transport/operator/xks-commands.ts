/** Commands about external key stores: stores with their credentials, keys of stores, the kill switch, rehearsed faults. */
import { defaultKeyPolicy } from '../../authorize/authorize.ts'
import { deadlineIn } from '../../call.ts'
import type { KeyEntry } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { KeyService } from '../../keys/keys.ts'
import type { Diagnosis, StoreAdministration, XksFaults } from '../xks/xks.ts'
import { command, type Input, type OperatorCommand } from './operator-command.ts'

export interface XksCommandParts {
  readonly administration: StoreAdministration
  /** `ca`: PEM. Without `endpoint`, the door's own. */
  readonly diagnose: (store: string, endpoint: string | undefined, ca: string | undefined) => Promise<Diagnosis>
  /** Absent: this is no development configuration. */
  readonly faults?: XksFaults
}

interface Parts {
  readonly xks: XksCommandParts
  readonly keys: KeyService
  readonly partition: string
  readonly defaultAccount: string
  readonly defaultRegion: string
}

const timeoutMs = 60_000
/** As for keys of the KMS API (ScheduleKeyDeletion). */
const deletionDaysMin = 7
const deletionDaysMax = 30
const store = { store: 'string' } as const
const place = { account: 'string', region: 'string' } as const
const credential = { accessKeyId: 'string', secretAccessKey: 'string' } as const

export function createXksCommands(parts: Parts): readonly OperatorCommand[] {
  const { xks, keys, partition, defaultAccount, defaultRegion } = parts
  const { administration, faults } = xks
  const localeOf = (input: Input) => ({
    partition,
    account: String(input.account ?? defaultAccount),
    region: String(input.region ?? defaultRegion),
  })
  const nameOf = (input: Input) => String(input.store)

  /** A key of purpose xks by id, ARN or alias: the KMS door, which manages the others, does not know it. */
  const findKey = async (input: Input): Promise<KeyEntry> => {
    const locale = localeOf(input)
    const reference = String(input.key)
    // an ARN says itself where its key lives
    const region = /^arn:[^:]+:kms:([^:]+):/.exec(reference)?.[1] ?? locale.region
    const { entry } = await keys.resolve(reference, 'key-or-alias', { ...locale, region })
    if (entry?.key.purpose === 'xks') return entry
    throw new GatewayError('NotFound', { text: `There is no key ${reference} of purpose xks.` })
  }
  const describe = ({ key }: KeyEntry) => ({ arn: keys.keyArn(key), state: key.state, deletionAt: key.deletionAt })
  const onKey = { members: { key: 'string', ...place }, optional: Object.keys(place) } as const
  const setEnabled = (isEnabled: boolean) => async (input: Input) => {
    const entry = await findKey(input)
    await keys.setEnabled(entry, isEnabled)
    return { ...describe(entry), state: isEnabled ? 'Enabled' : 'Disabled' }
  }

  const block = (isBlocked: boolean) => async (input: Input) => {
    if (input.key === undefined) await administration.setStoreBlocked(nameOf(input), isBlocked)
    else await administration.setKeyBlocked(nameOf(input), String(input.key), isBlocked)
    return { store: nameOf(input), ...(input.key === undefined ? {} : { key: input.key }), isBlocked }
  }

  return [
    command(
      'xks-store',
      'create',
      {
        members: {
          ...store,
          prefix: 'string',
          region: 'string',
          aadMode: 'string',
          requestsPerSecond: 'integer',
          principals: 'string',
          clientNames: 'string',
          ...credential,
        },
        optional: [
          'prefix',
          'region',
          'aadMode',
          'requestsPerSecond',
          'principals',
          'clientNames',
          ...credentialMembers,
        ],
        secret: ['secretAccessKey', 'credential'],
      },
      (input) => {
        const given = credentialOf(input)
        return administration.create({
          name: nameOf(input),
          prefix: String(input.prefix ?? `/${nameOf(input)}`),
          region: String(input.region ?? defaultRegion),
          aadMode: aadModeOf(input.aadMode),
          requestsPerSecond: input.requestsPerSecond === undefined ? null : Number(input.requestsPerSecond),
          principals: listOf(input.principals),
          clientNames: listOf(input.clientNames),
          ...(given === undefined ? {} : { credential: given }),
        })
      },
    ),
    command('xks-store', 'list', { members: {}, readOnly: true }, async () => ({
      stores: await administration.list(),
    })),
    command('xks-store', 'show', { members: store, readOnly: true }, async (input) => ({
      ...(await administration.describe(nameOf(input))),
      keyList: await administration.listKeys(nameOf(input)),
    })),
    command('xks-store', 'delete', { members: store }, (input) => administration.remove(nameOf(input))),
    command(
      'xks-store',
      'rotate-credential',
      { members: { ...store, ...credential }, optional: credentialMembers, secret: ['secretAccessKey'] },
      (input) => administration.rotateCredential(nameOf(input), credentialOf(input)),
    ),
    command('xks-store', 'retire-credential', { members: { ...store, accessKeyId: 'string' } }, (input) =>
      administration.retireCredential(nameOf(input), String(input.accessKeyId)),
    ),
    command(
      'xks-store',
      'doctor',
      { members: { ...store, endpoint: 'string', ca: 'string' }, optional: ['endpoint', 'ca'], readOnly: true },
      ({ endpoint, ca, ...input }) =>
        xks.diagnose(
          nameOf(input),
          endpoint === undefined ? undefined : String(endpoint),
          ca === undefined ? undefined : String(ca),
        ),
    ),
    command('xks', 'block', { members: { ...store, key: 'string' }, optional: ['key'] }, block(true)),
    command('xks', 'unblock', { members: { ...store, key: 'string' }, optional: ['key'] }, block(false)),
    command(
      'xks-key',
      'create',
      {
        members: { ...store, id: 'string', description: 'string', group: 'string', ...place },
        optional: ['store', 'id', 'description', 'group', ...Object.keys(place)],
      },
      async (input) => {
        const locale = localeOf(input)
        if (input.id !== undefined && input.store === undefined) {
          throw new GatewayError('ValidationFailed', { text: 'An external key id is one of a store: name it.' })
        }
        if (input.store !== undefined) await administration.describe(nameOf(input))
        const request = {
          spec: 'SYMMETRIC_DEFAULT',
          usage: 'ENCRYPT_DECRYPT',
          purpose: 'xks',
          description: String(input.description ?? ''),
          policy: defaultKeyPolicy(locale.account, partition),
          tags: {},
          multiRegion: false,
          origin: 'AWS_KMS',
          ...(input.group === undefined ? {} : { group: String(input.group) }),
        } as const
        const entry = await keys.create(request, locale, deadlineIn(timeoutMs))
        const arn = keys.keyArn(entry.key)
        if (input.store === undefined) return { arn }
        return administration.addKey(nameOf(input), String(input.id ?? entry.key.keyId), arn, locale)
      },
    ),
    command(
      'xks-key',
      'add',
      { members: { ...store, id: 'string', key: 'string', ...place }, optional: Object.keys(place) },
      async (input) => {
        const entry = await findKey(input)
        const { region } = entry.key
        return administration.addKey(nameOf(input), String(input.id), keys.keyArn(entry.key), {
          ...localeOf(input),
          region,
        })
      },
    ),
    command('xks-key', 'enable', onKey, setEnabled(true)),
    command('xks-key', 'disable', onKey, setEnabled(false)),
    command(
      'xks-key',
      'schedule-deletion',
      { members: { ...onKey.members, days: 'integer' }, optional: [...onKey.optional, 'days'] },
      async (input) => {
        const days = Number(input.days ?? deletionDaysMax)
        if (days < deletionDaysMin || days > deletionDaysMax) {
          const text = `The waiting period has ${deletionDaysMin} to ${deletionDaysMax} days.`
          throw new GatewayError('ValidationFailed', { text })
        }
        return describe(await keys.scheduleDeletion(await findKey(input), days))
      },
    ),
    command('xks-key', 'cancel-deletion', onKey, async (input) =>
      describe(await keys.cancelDeletion(await findKey(input))),
    ),
    command('xks-key', 'remove', { members: { ...store, id: 'string' } }, (input) =>
      administration.removeKey(nameOf(input), String(input.id)),
    ),
    command('xks-key', 'list', { members: store, readOnly: true }, async (input) => ({
      keys: await administration.listKeys(nameOf(input)),
    })),
    command('xks', 'fault', { members: { ...store, kind: 'string', duration: 'string' } }, async (input) => {
      if (faults === undefined) {
        const text = 'Faults are rehearsed with a development configuration only.'
        throw new GatewayError('Unsupported', { text })
      }
      await administration.describe(nameOf(input))
      const { kind, latencyMs } = faults.set(nameOf(input), String(input.kind), String(input.duration))
      return { store: nameOf(input), kind, latencyMs, duration: input.duration }
    }),
  ]
}

const credentialMembers = Object.keys(credential)

function credentialOf({ accessKeyId, secretAccessKey }: Input) {
  if (accessKeyId === undefined && secretAccessKey === undefined) return undefined
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new GatewayError('ValidationFailed', { text: 'An access key id and its secret come together.' })
  }
  return { accessKeyId: String(accessKeyId), secretAccessKey: String(secretAccessKey) }
}

function aadModeOf(value: Input[string]): 'spec' | 'sha256' {
  if (value === undefined || value === 'spec') return 'spec'
  if (value === 'sha256') return 'sha256'
  throw new GatewayError('ValidationFailed', { text: 'aadMode is spec or sha256.' })
}

/** One in each line. */
function listOf(value: Input[string]): readonly string[] {
  return value === undefined
    ? []
    : String(value)
        .split('\n')
        .filter((line) => line !== '')
}
