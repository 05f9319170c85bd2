/** Sections `tokens`, `groups`, `defaultGroup`: the PKCS#11 tokens behind the gateway, and which of them serve the same keys. */
import type { Problem } from '../../problem.ts'
import { namePattern, type Section } from './section.ts'

export interface TokenConfig {
  readonly module: string
  /** Library parameters for C_Initialize, for modules that need them (NSS). */
  readonly initArgs?: string
  /** Exactly one of `label` and `serial` names the token. */
  readonly label?: string
  readonly serial?: string
  /** Absent exactly where `clusterId` is there: the password of the custom key store is the PIN. */
  readonly pinFile?: string
  /** CloudHSM-style user: the PIN presented is `<cryptoUser>:<content of pinFile>`. */
  readonly cryptoUser?: string
  readonly profile: 'softhsm' | 'cloudhsm' | 'luna' | 'nshield' | 'utimaco' | 'yubihsm2' | 'generic'
  readonly env: Readonly<Record<string, string>>
  /** Serve workers; one manage worker comes with them. */
  readonly workers: number
  /** Sessions of one serve worker; absent: from the token's limits. */
  readonly sessions?: number
  readonly clusterId?: string
  /** PEM certificate that the makers of a custom key store on this token must present. */
  readonly trustAnchorFile?: string
}

export interface GroupConfig {
  readonly tokens: readonly string[]
}

export const tokens: Section<Readonly<Record<string, TokenConfig>>> = {
  schema: {
    type: 'object',
    description: 'PKCS#11 tokens by a name of your choice.',
    propertyNames: { pattern: namePattern },
    additionalProperties: {
      type: 'object',
      description: 'One token and the user that the gateway logs in as.',
      properties: {
        module: { type: 'string', description: 'PKCS#11 module (shared library).', filePath: true },
        initArgs: {
          type: 'string',
          description:
            'Library parameters that the module wants at C_Initialize, such as `configdir=...` of NSS softokn. No secrets.',
          minLength: 1,
        },
        label: {
          type: 'string',
          description: 'Label of the token. Exactly one of `label` and `serial` is needed.',
          minLength: 1,
        },
        serial: { type: 'string', description: 'Serial number of the token.', minLength: 1 },
        pinFile: {
          type: 'string',
          description:
            'File with the PIN of the crypto user and nothing else, readable by its worker only (mode 0600). Needed unless there is a `clusterId`.',
          filePath: true,
        },
        cryptoUser: {
          type: 'string',
          description: 'User name, for modules whose PIN has the form `user:password`.',
          pattern: '^[^:]+$',
          form: 'a user name without a colon',
        },
        profile: {
          type: 'string',
          description: 'Which vendor’s peculiarities to allow for.',
          enum: ['softhsm', 'cloudhsm', 'luna', 'nshield', 'utimaco', 'yubihsm2', 'generic'],
          default: 'generic',
        },
        env: {
          type: 'object',
          description: 'Environment variables for the worker processes, such as `SOFTHSM2_CONF`. No secrets.',
          additionalProperties: { type: 'string', description: 'Value of the variable.' },
          default: {},
        },
        workers: {
          type: 'integer',
          description: 'Serve workers (processes) of this token.',
          minimum: 1,
          maximum: 16,
          default: 2,
        },
        sessions: {
          type: 'integer',
          description: 'Sessions, each with a thread, of one serve worker.',
          minimum: 1,
          maximum: 256,
          derivedDefault: 'from the token’s limits',
        },
        clusterId: {
          type: 'string',
          description:
            'Makes the token available as a custom key store of type AWS_CLOUDHSM under this id; it is in no group, and its PIN is the store’s password.',
          pattern: '^cluster-[2-7a-zA-Z]{11,16}$',
          form: '`cluster-` and 11 to 16 letters or digits 2 to 7',
        },
        trustAnchorFile: {
          type: 'string',
          description:
            'Certificate (PEM) that CreateCustomKeyStore must present for this cluster; needed but in development, where without it any certificate will do.',
          filePath: true,
        },
      },
      required: ['module'],
      additionalProperties: false,
    },
  },
  check(value, at) {
    const problems: Problem[] = []
    const clusters = new Set<string>()
    for (const [name, token] of Object.entries(value)) {
      problems.push(...checkPinSource(token, `${at}.${name}`))
      if (token.clusterId !== undefined) {
        if (clusters.has(token.clusterId)) {
          const remedy = 'give every token a cluster id of its own'
          problems.push({ at: `${at}.${name}.clusterId`, cause: 'is also the id of another token', remedy })
        }
        clusters.add(token.clusterId)
      }
      if ((token.label === undefined) !== (token.serial === undefined)) continue
      problems.push({
        at: `${at}.${name}`,
        cause: token.label === undefined ? 'names no token' : 'names the token twice, by label and by serial',
        remedy: 'give either label or serial',
      })
    }
    if (Object.values(value).every(({ clusterId }) => clusterId !== undefined)) {
      problems.push({ at, cause: 'holds no token of the gateway’s own', remedy: 'describe at least one PKCS#11 token' })
    }
    return problems
  },
}

function checkPinSource({ pinFile, clusterId, trustAnchorFile }: TokenConfig, at: string): readonly Problem[] {
  const problems: Problem[] = []
  if (pinFile === undefined && clusterId === undefined) {
    problems.push({ at: `${at}.pinFile`, cause: 'is missing', remedy: 'name the file with the PIN of the crypto user' })
  }
  if (pinFile !== undefined && clusterId !== undefined) {
    const cause = 'is not used: the password of the custom key store is the PIN'
    problems.push({ at: `${at}.pinFile`, cause, remedy: 'remove it, or remove clusterId' })
  }
  if (trustAnchorFile !== undefined && clusterId === undefined) {
    const remedy = 'remove it, or give the token a clusterId'
    problems.push({ at: `${at}.trustAnchorFile`, cause: 'is for tokens with a clusterId', remedy })
  }
  return problems
}

export const groups: Section<Readonly<Record<string, GroupConfig>>> = {
  schema: {
    type: 'object',
    description: 'Groups of tokens that serve the same keys, by a name of your choice. A key belongs to a group.',
    propertyNames: { pattern: namePattern },
    derivedDefault: 'one group `default` when there is one token',
    additionalProperties: {
      type: 'object',
      description: 'One group.',
      properties: {
        tokens: {
          type: 'array',
          description: 'Names of the tokens; all must hold the same keys.',
          items: { type: 'string', description: 'Name under `tokens`.' },
          minItems: 1,
          uniqueItems: true,
        },
      },
      required: ['tokens'],
      additionalProperties: false,
    },
  },
}

export const defaultGroup: Section<string> = {
  schema: {
    type: 'string',
    description: 'Group of new keys, unless the caller names a custom key store.',
    derivedDefault: 'the only group',
  },
}
