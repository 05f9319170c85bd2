/** Section `catalog`: where the metadata of keys and principals is kept. */
import type { Problem } from '../../problem.ts'
import type { Section } from './section.ts'

export type CatalogConfig =
  | { readonly kind: 'sqlite'; readonly file: string }
  | { readonly kind: 'postgresql'; readonly postgresql: PostgresqlConfig }

export interface PostgresqlConfig {
  /** A name, an address, or the folder of the server's Unix socket. */
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  readonly passwordFile?: string
  readonly tls?: { readonly caFile?: string; readonly certificateFile?: string; readonly keyFile?: string }
  readonly connections: number
}

export const catalog: Section<CatalogConfig> = {
  schema: {
    type: 'object',
    description: 'Durable metadata of keys, aliases, policies and principals.',
    properties: {
      kind: {
        type: 'string',
        description:
          'Kind of database: a file for one gateway, or a PostgreSQL server for several (docs/postgresql.md).',
        enum: ['sqlite', 'postgresql'],
        default: 'sqlite',
      },
      file: {
        type: 'string',
        description: 'Kind `sqlite`: database file, on a local disk.',
        filePath: true,
        derivedDefault: '`catalog.sqlite` in the state folder',
      },
      postgresql: {
        type: 'object',
        description: 'Kind `postgresql`: the server, PostgreSQL 13 or later, and how to log in.',
        properties: {
          host: {
            type: 'string',
            description: 'Name or address of the primary server, or the folder of its Unix socket.',
            pattern: '^(/.*|[0-9A-Za-z._:-]+)$',
            form: 'a host name, an address, or a folder that begins with /',
          },
          port: { type: 'integer', description: 'Its port.', minimum: 1, maximum: 65_535, default: 5432 },
          database: { type: 'string', description: 'Database, which the user owns.', minLength: 1, default: 'hsmgate' },
          user: { type: 'string', description: 'Role to log in as.', minLength: 1, default: 'hsmgate' },
          passwordFile: {
            type: 'string',
            description:
              'File with its password and nothing else (mode 0600); read for every connection. Not needed where the server asks for none.',
            filePath: true,
          },
          tls: {
            type: 'object',
            description:
              'TLS, with the name of the server always verified. Needed beyond this machine, unless `insecure` is true.',
            properties: {
              caFile: {
                type: 'string',
                description: "PEM certificates of the authorities to trust, instead of the system's.",
                filePath: true,
              },
              certificateFile: { type: 'string', description: 'PEM client certificate.', filePath: true },
              keyFile: { type: 'string', description: 'Its private key (mode 0600).', filePath: true },
            },
            additionalProperties: false,
          },
          connections: {
            type: 'integer',
            description: 'Connections of this gateway at most.',
            minimum: 3,
            maximum: 100,
            default: 6,
          },
        },
        required: ['host'],
        additionalProperties: false,
      },
    },
    additionalProperties: false,
    default: {},
  },
  check(value, at) {
    const problems: Problem[] = []
    const { kind, file, postgresql } = value as {
      readonly kind: CatalogConfig['kind']
      readonly file?: string
      readonly postgresql?: PostgresqlConfig
    }
    if (kind === 'sqlite' && postgresql !== undefined) {
      const remedy = `set ${at}.kind to postgresql, or remove it`
      problems.push({ at: `${at}.postgresql`, cause: 'is of no use to kind sqlite', remedy })
    }
    if (kind === 'postgresql' && file !== undefined) {
      problems.push({ at: `${at}.file`, cause: 'is of no use to kind postgresql', remedy: 'remove it' })
    }
    if (kind === 'postgresql' && postgresql === undefined) {
      problems.push({ at: `${at}.postgresql`, cause: 'is missing', remedy: 'name the server: { "host": ... }' })
    }
    const { certificateFile, keyFile } = postgresql?.tls ?? {}
    if ((certificateFile === undefined) !== (keyFile === undefined)) {
      const remedy = 'name both certificateFile and keyFile, or none'
      problems.push({ at: `${at}.postgresql.tls`, cause: 'has half of a client certificate', remedy })
    }
    return problems
  },
}
