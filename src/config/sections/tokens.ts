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
  readonly pinFile: string
  /** CloudHSM-style user: the PIN presented is `<cryptoUser>:<content of pinFile>`. */
  readonly cryptoUser?: string
  readonly profile: 'softhsm' | 'cloudhsm' | 'luna' | 'nshield' | 'utimaco' | 'yubihsm2' | 'generic'
  readonly env: Readonly<Record<string, string>>
  /** Serve workers; one manage worker comes with them. */
  readonly workers: number
  /** Sessions of one serve worker; absent: from the token's limits. */
  readonly sessions?: number
  readonly clusterId?: string
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
            'File with the PIN of the crypto user and nothing else, readable by its worker only (mode 0600).',
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
          description: 'Id under which the token can be a custom key store of type AWS_CLOUDHSM.',
          pattern: '^cluster-[2-7a-zA-Z]{11,16}$',
          form: '`cluster-` and 11 to 16 letters or digits 2 to 7',
        },
      },
      required: ['module', 'pinFile'],
      additionalProperties: false,
    },
  },
  check(value, at) {
    const problems: Problem[] = []
    for (const [name, token] of Object.entries(value)) {
      if ((token.label === undefined) !== (token.serial === undefined)) continue
      problems.push({
        at: `${at}.${name}`,
        cause: token.label === undefined ? 'names no token' : 'names the token twice, by label and by serial',
        remedy: 'give either label or serial',
      })
    }
    if (Object.keys(value).length === 0) {
      problems.push({ at, cause: 'holds no token', remedy: 'describe at least one PKCS#11 token' })
    }
    return problems
  },
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
