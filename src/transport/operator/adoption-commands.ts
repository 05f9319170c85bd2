/** Commands about objects that are in a token already: adoption into the catalog, and the comparison of both. */
import { defaultKeyPolicy } from '../../authorize/authorize.ts'
import { deadlineIn } from '../../call.ts'
import type { KeyEntry } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { Hsm, KeyUsage } from '../../hsm/port.ts'
import type { AdoptKeyRequest, KeyService } from '../../keys/keys.ts'
import { parseAlias } from './alias-option.ts'
import { command, type Input, type OperatorCommand } from './operator-command.ts'

interface AdoptionParts {
  readonly keys: KeyService
  readonly hsm: Hsm
  readonly partition: string
  readonly defaultAccount: string
  readonly defaultRegion: string
}

const timeoutMs = 60_000
/** AWS KMS API Reference: CreateKey. */
const descriptionChars = 8192
/** CKA_ID has no limit of its own; nobody's is longer. */
const objectIdHexChars = 2048
const usages: readonly KeyUsage[] = ['ENCRYPT_DECRYPT', 'SIGN_VERIFY', 'GENERATE_VERIFY_MAC', 'KEY_AGREEMENT']

export function createAdoptionCommands(parts: AdoptionParts): readonly OperatorCommand[] {
  const { keys, hsm, partition, defaultAccount, defaultRegion } = parts
  const place = { account: 'string', region: 'string' } as const

  async function adopt(input: Input) {
    const locale = {
      partition,
      account: String(input.account ?? defaultAccount),
      region: String(input.region ?? defaultRegion),
    }
    const alias = parseAlias(input.alias)
    const request = readRequest(input, defaultKeyPolicy(locale.account, partition))
    if (alias !== undefined && (await keys.findAlias(alias, locale)) !== undefined) {
      throw new GatewayError('AlreadyExists', { text: `The alias ${alias} exists.` })
    }
    const entry = await keys.adopt(request, locale, deadlineIn(timeoutMs))
    if (alias !== undefined) await keys.createAlias(alias, entry)
    return describe(keys, entry, alias)
  }

  return [
    command(
      'key',
      'adopt',
      {
        members: {
          ...place,
          label: 'string',
          objectId: 'string',
          objectClass: 'string',
          usage: 'string',
          purpose: 'string',
          alias: 'string',
          description: 'string',
          group: 'string',
          allowWeak: 'boolean',
        },
        optional: [
          ...Object.keys(place),
          ...['label', 'objectId', 'objectClass', 'usage', 'purpose', 'alias', 'description', 'group', 'allowWeak'],
        ],
      },
      adopt,
    ),
    command(
      'key',
      'reconcile',
      { members: { group: 'string' }, optional: ['group'], readOnly: true },
      async (input) => {
        const names = hsm.groups().map(({ name }) => name)
        if (input.group !== undefined && !names.includes(String(input.group))) {
          throw new GatewayError('NotFound', { text: `There is no group ${String(input.group)}.` })
        }
        const chosen = names.filter((name) => input.group === undefined || name === input.group)
        const deadline = deadlineIn(timeoutMs)
        const found = await Promise.all(chosen.map((name) => keys.reconcile(name, deadline)))
        return {
          groups: chosen,
          unknown: found.flatMap(({ unknown }) => unknown),
          missing: found.flatMap(({ missing }) => missing),
          weak: found.flatMap(({ weak }) => weak),
        }
      },
    ),
  ]
}

function readRequest(input: Input, policy: string): AdoptKeyRequest {
  const { label, objectId, description = '', group } = input
  if (label === undefined && objectId === undefined) throw invalid('Name the object by label, by object id, or both.')
  if (label === '') throw invalid('The label is empty.')
  if (String(description).length > descriptionChars)
    throw invalid(`A description has at most ${descriptionChars} characters.`)
  return {
    ...(label === undefined ? {} : { label: String(label) }),
    ...(objectId === undefined ? {} : { objectId: parseObjectId(String(objectId)) }),
    ...(group === undefined ? {} : { group: String(group) }),
    ...oneOf(input, 'objectClass', ['private', 'secret'] as const),
    ...oneOf(input, 'usage', usages),
    ...oneOf(input, 'purpose', ['kms', 'tls', 'xks'] as const),
    description: String(description),
    policy,
    allowWeak: input.allowWeak === true,
  }
}

function parseObjectId(hex: string): Buffer {
  if (/^(?:[0-9a-f]{2})+$/i.test(hex) && hex.length <= objectIdHexChars) return Buffer.from(hex, 'hex')
  throw invalid('The object id is not a hexadecimal number of whole bytes.')
}

function oneOf<K extends string, T extends string>(input: Input, name: K, values: readonly T[]): { [P in K]?: T } {
  const value = input[name]
  if (value === undefined) return {}
  const found = values.find((allowed) => allowed === value)
  if (found === undefined) throw invalid(`${name} is one of ${values.join(', ')}.`)
  return { [name]: found } as { [P in K]?: T }
}

function describe(keys: KeyService, { key }: KeyEntry, alias: string | undefined) {
  const { keyId, account, region, spec, usage, purpose, group, extra } = key
  return {
    arn: keys.keyArn(key),
    ...(alias === undefined ? {} : { alias }),
    ...{ keyId, account, region, spec, usage, purpose, group, adoption: extra.adoption },
  }
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}
