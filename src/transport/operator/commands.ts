/**
 * What operators can ask of a running gateway: one row per command, `POST /v1/<noun>/<verb>` on the operator socket with a JSON object.
 * The door checks the peer, the schema and writes the audit record; a command only does.
 */
import type { Administration } from '../../administration.ts'
import type { Checkpoint } from '../../audit/audit.ts'
import type { Catalog } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { Hsm } from '../../hsm/port.ts'
import type { DestructionGate, KeyService, Pause } from '../../keys/keys.ts'
import type { Problem } from '../../problem.ts'
import type { RelayAdministration } from '../../relays.ts'
import type { Simulation } from '../../simulation.ts'
import type { TlsAdministration } from '../../tls-administration.ts'
import { createAdoptionCommands } from './adoption-commands.ts'
import { command, type Input, type OperatorCommand } from './operator-command.ts'
import { createPolicyCommands } from './policy-commands.ts'
import { createRoleCommands } from './role-commands.ts'
import { createTlsCommands } from './tls-commands.ts'
import { createXksCommands, type XksCommandParts } from './xks-commands.ts'

export interface CommandParts {
  readonly administration: Administration
  readonly catalog: Catalog
  readonly keys: KeyService
  readonly hsm: Hsm
  readonly simulation: Simulation
  readonly tls: TlsAdministration
  readonly relays: RelayAdministration
  readonly journal: { checkpoint(): Promise<Checkpoint | undefined> }
  readonly destruction: Pick<DestructionGate, 'check' | 'confirm'> & {
    describe(pause: Pause): Problem
    /** A round of destruction soon; need not be waited for. */
    run(): Promise<void>
  }
  readonly xks: XksCommandParts
  readonly partition: string
  readonly defaultAccount: string
  readonly defaultRegion: string
}

export function createOperatorCommands(parts: CommandParts): readonly OperatorCommand[] {
  const { administration, catalog, keys, hsm, journal, destruction, partition, defaultAccount, defaultRegion } = parts
  const account = (input: Input): string => String(input.account ?? defaultAccount)
  const region = (input: Input): string => String(input.region ?? defaultRegion)
  const user = { name: 'string', account: 'string' } as const
  const optional = ['account']

  const showClock = async () => {
    const { now, pauses } = await destruction.check()
    return {
      wallTime: now,
      destruction: pauses.length === 0 ? 'allowed' : 'paused',
      pauses: pauses.map((pause) => ({ ...pause, ...destruction.describe(pause) })),
      due: (await catalog.dueDeletions(now)).map((name) => keys.keyArn(name)),
    }
  }

  return [
    command('principal', 'create', { members: user, optional }, (input) =>
      administration.createUser(account(input), String(input.name)),
    ),
    command('principal', 'list', { members: { account: 'string' }, optional, readOnly: true }, async (input) => ({
      users: await administration.listUsers(input.account === undefined ? undefined : String(input.account)),
    })),
    command('principal', 'enable', { members: user, optional }, (input) =>
      administration.setUserEnabled(account(input), String(input.name), true),
    ),
    command('principal', 'disable', { members: user, optional }, (input) =>
      administration.setUserEnabled(account(input), String(input.name), false),
    ),
    command('principal', 'delete', { members: user, optional }, (input) =>
      administration.deleteUser(account(input), String(input.name)),
    ),
    command(
      'principal-policy',
      'put',
      { members: { ...user, policyName: 'string', document: 'string' }, optional },
      (input) =>
        administration.putPolicy(account(input), String(input.name), String(input.policyName), String(input.document)),
    ),
    command('principal-policy', 'get', { members: user, optional, readOnly: true }, async (input) => ({
      policies: await administration.getPolicies(account(input), String(input.name)),
    })),
    command('principal-policy', 'delete', { members: { ...user, policyName: 'string' }, optional }, (input) =>
      administration.deletePolicy(account(input), String(input.name), String(input.policyName)),
    ),
    command('principal-key', 'create', { members: user, optional, secretAnswer: ['secretAccessKey'] }, (input) =>
      administration.createAccessKey(account(input), String(input.name)),
    ),
    command(
      'principal-key',
      'list',
      { members: user, optional: ['account', 'name'], readOnly: true },
      async (input) => ({
        accessKeys: await administration.listAccessKeys(
          account(input),
          input.name === undefined ? undefined : String(input.name),
        ),
      }),
    ),
    command('principal-key', 'enable', { members: { accessKeyId: 'string' } }, (input) =>
      administration.setAccessKeyActive(String(input.accessKeyId), true),
    ),
    command('principal-key', 'disable', { members: { accessKeyId: 'string' } }, (input) =>
      administration.setAccessKeyActive(String(input.accessKeyId), false),
    ),
    command('principal-key', 'delete', { members: { accessKeyId: 'string' } }, (input) =>
      administration.deleteAccessKey(String(input.accessKeyId)),
    ),
    ...createRoleCommands(administration, defaultAccount),
    ...createPolicyCommands(parts.simulation, defaultAccount, defaultRegion),
    command(
      'key',
      'list',
      {
        members: { account: 'string', region: 'string', after: 'string', limit: 'integer' },
        optional: ['account', 'region', 'after', 'limit'],
        readOnly: true,
      },
      async (input) => {
        const after = input.after === undefined ? undefined : String(input.after)
        const limit = Math.min(Math.max(Number(input.limit ?? 1000), 1), 1000)
        const ids = await catalog.listKeys(account(input), region(input), after, limit)
        const entries = await Promise.all(
          ids.map((keyId) => catalog.findKey({ account: account(input), region: region(input), keyId })),
        )
        return { keys: entries.filter((entry) => entry !== undefined).map((entry) => entry.key) }
      },
    ),
    command(
      'key',
      'show',
      {
        members: { key: 'string', account: 'string', region: 'string' },
        optional: ['account', 'region'],
        readOnly: true,
      },
      async (input) => {
        const locale = { partition, account: account(input), region: region(input) }
        const { entry, arn, alias } = await keys.resolve(String(input.key), 'key-or-alias', locale)
        if (entry === undefined)
          throw new GatewayError('NotFound', { text: `Key ${String(input.key)} does not exist.` })
        const materials = entry.materials.map((row) => ({
          number: row.number,
          state: row.state,
          objectId: row.objectId.toString('hex'),
          label: row.label,
          construction: row.construction,
          materialId: row.materialId.toString('hex'),
          createdAt: row.createdAt,
        }))
        return {
          arn,
          ...(alias === undefined ? {} : { alias }),
          ...entry.key,
          materials,
          policy: entry.policy?.document ?? null,
          tags: entry.tags,
        }
      },
    ),
    ...createAdoptionCommands(parts),
    ...createTlsCommands(parts),
    ...createXksCommands(parts),
    command('token', 'retry-login', { members: { token: 'string' } }, async (input) => {
      await hsm.retryLogin(String(input.token))
      return { groups: hsm.groups() }
    }),
    command('token', 'list', { members: {}, readOnly: true }, async () => ({ groups: hsm.groups() })),
    command('clock', 'show', { members: {}, readOnly: true }, showClock),
    command('clock', 'confirm', { members: {} }, async () => {
      await destruction.confirm()
      const shown = await showClock()
      void destruction.run()
      return shown
    }),
    command('audit', 'checkpoint', { members: {} }, async () => {
      const checkpoint = await journal.checkpoint()
      if (checkpoint === undefined) throw new GatewayError('NotFound', { text: 'The journal has no records to sign.' })
      return checkpoint
    }),
  ]
}
