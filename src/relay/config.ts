/** The relay's configuration: one JSON file of its own, strict, because a web host has no gateway, no token and no state. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { deepFreeze, parseJson } from '../config/load.ts'
import { createParse } from '../config/parse.ts'
import type { Schema } from '../config/sections/section.ts'
import { type Problem, ProblemsError } from '../problem.ts'
import type { LocalSocketPlaces } from '../transport/offload/local-sockets.ts'
import { type GatewayPlace, parsePlace, type WrittenPlace } from './place.ts'

export interface RelayConfig extends LocalSocketPlaces {
  /** Users (uid) that may have signatures made; absent: all whom the socket's mode lets in. */
  readonly users?: readonly number[]
  readonly gateways: readonly GatewayPlace[]
  readonly certificateFile: string
  readonly keyFile: string
  readonly caFile: string
  /** Connections to each gateway. */
  readonly connections: number
  readonly maxBudgetMs: number
  /** Share of the remaining budget after which another gateway is asked too. */
  readonly attemptPercent: number
  readonly maxPending: number
  readonly maxConnections: number
  readonly maxInFlight: number
  readonly idleSeconds: number
  readonly reportSeconds: number
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error'
  /** Folder of the default socket. */
  readonly runDirectory: string
}

type Document = Omit<RelayConfig, 'gateways' | 'runDirectory'> & { readonly gateways: readonly WrittenPlace[] }

const integer = (description: string, minimum: number, maximum: number, value: number): Schema => ({
  type: 'integer',
  description,
  minimum,
  maximum,
  default: value,
})
const file = (description: string): Schema => ({ type: 'string', description, minLength: 1, filePath: true })

export const relaySchema: Schema = {
  type: 'object',
  description: 'The configuration of a relay.',
  properties: {
    socket: {
      ...file('Unix socket of the OpenSSL provider.'),
      derivedDefault: '`sign.sock` in the run folder',
    },
    moreSockets: {
      type: 'array',
      description: 'Further Unix sockets, such as one inside the chroot of a web server.',
      items: file('Path of a Unix socket.'),
      uniqueItems: true,
      default: [],
    },
    mode: {
      type: 'string',
      description: 'Mode of the sockets, octal: who may connect.',
      enum: ['0600', '0660', '0666'],
      default: '0660',
    },
    group: {
      type: 'string',
      description: 'Group of the sockets, by name or number.',
      minLength: 1,
      derivedDefault: 'the group of the process',
    },
    users: {
      type: 'array',
      description: 'Users, by number, that may have signatures made; gateways do not look at the users of a relay.',
      items: { type: 'integer', description: 'A uid.', minimum: 0, maximum: 0xffff_ffff },
      minItems: 1,
      uniqueItems: true,
      derivedDefault: 'all whom the mode lets in',
    },
    gateways: {
      type: 'array',
      description: 'Addresses of the gateways, host:port; all are used, the least busy first.',
      items: {
        type: 'object',
        description: 'A gateway.',
        properties: {
          address: {
            type: 'string',
            description: 'host:port, or [address]:port for IPv6.',
            pattern: '^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9._-]+):[0-9]{1,5}$',
            form: 'host:port, or [address]:port for IPv6',
          },
          serverName: {
            type: 'string',
            description: 'Name in the certificate of the gateway.',
            minLength: 1,
            derivedDefault: 'the host of the address',
          },
        },
        required: ['address'],
        additionalProperties: false,
      },
      minItems: 1,
      uniqueItems: true,
    },
    certificateFile: file('PEM: the certificate that an operator of the gateway approved.'),
    keyFile: file('PEM: the private key of the certificate.'),
    caFile: file('PEM: the authorities of the certificates of gateways.'),
    connections: integer('Connections to each gateway.', 1, 16, 2),
    maxBudgetMs: integer('Longest time for one signature; a caller’s own budget is cut to this.', 10, 10_000, 1000),
    attemptPercent: integer(
      'Share of a signature’s time after which a gateway that has not answered gets company by another one.',
      5,
      90,
      40,
    ),
    maxPending: integer(
      'Signatures under way at one time, waiting ones included; more are answered BUSY.',
      1,
      8192,
      1024,
    ),
    maxConnections: integer(
      'Local connections at one time. When all are taken, an idle one that never had a signature makes room.',
      1,
      1_000_000,
      16_384,
    ),
    maxInFlight: integer('Open requests of one local connection.', 1, 4095, 64),
    idleSeconds: integer(
      'Silence after which a local connection is closed. One that never had a signature is closed after 30 seconds at most.',
      1,
      86_400,
      600,
    ),
    reportSeconds: integer(
      'How often the counters go to the log while they change; 0: only at SIGUSR1.',
      0,
      86_400,
      60,
    ),
    logLevel: {
      type: 'string',
      description: 'Least level of the lines in the log.',
      enum: ['debug', 'info', 'warn', 'error'],
      default: 'info',
    },
  },
  required: ['gateways', 'certificateFile', 'keyFile', 'caFile'],
  additionalProperties: false,
}

const parse = createParse(relaySchema)

/** @throws ProblemsError with every problem of the file. */
export function loadRelayConfig(file: string, environment: NodeJS.ProcessEnv = process.env): RelayConfig {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const missing = code === 'ENOENT'
    const remedy = missing ? 'run `hsmgate relay enroll`, or name another file with --config' : 'name a readable file'
    throw new ProblemsError([{ at: file, cause: missing ? 'does not exist' : `cannot be read (${code})`, remedy }], {
      cause,
    })
  }
  return parseRelayConfig(parseJson(text, file), path.dirname(path.resolve(file)), environment)
}

/** `document` is changed in place; relative paths are from `directory`. @throws ProblemsError */
export function parseRelayConfig(
  document: unknown,
  directory: string,
  environment: NodeJS.ProcessEnv = process.env,
): RelayConfig {
  const { values, problems } = parse(document, directory)
  if (problems.length > 0) throw new ProblemsError(problems)
  const { gateways, ...rest } = values as Document
  const runDirectory = environment.RUNTIME_DIRECTORY ?? '/run/hsmgate'
  const found: Problem[] = []
  const places = gateways.map((gateway, index) => parsePlace(gateway, `gateways[${index}]`, found))
  const names = places.map(({ name }) => name)
  const twin = names.find((name, index) => names.indexOf(name) !== index)
  if (twin !== undefined) found.push({ at: 'gateways', cause: `names ${twin} twice`, remedy: 'name it once' })
  if (found.length > 0) throw new ProblemsError(found)
  return deepFreeze({
    ...rest,
    socket: rest.socket ?? path.join(runDirectory, 'sign.sock'),
    gateways: places,
    runDirectory,
  } as RelayConfig)
}
