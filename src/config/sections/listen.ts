/** Section `listen`: where each door listens. Plain HTTP is for loopback; `insecure` is judged in load.ts, which sees the whole file. */
import type { Schema, Section } from './section.ts'

export interface TlsConfig {
  readonly certificateFile: string
  readonly keyFile: string
  /** Certificates of the CAs whose clients are let in; absent: no client certificate is asked for. */
  readonly clientCaFile?: string
}

export interface HttpListener {
  readonly address: string
  /** 0 picks a free port. */
  readonly port: number
  readonly tls?: TlsConfig
}

export interface OffloadListener {
  readonly socket: string
  /** Further paths of the same door, such as one inside a chroot. */
  readonly moreSockets: readonly string[]
  /** Octal. */
  readonly mode: string
  /** Name or number; absent: the group of the gateway's process. */
  readonly group?: string
}

export interface RelayListener {
  readonly address: string
  /** 0 picks a free port. */
  readonly port: number
  /** Without `clientCaFile`: relays that this gateway approved. */
  readonly tls: TlsConfig
}

export interface ListenConfig {
  /** `null`: this door is shut. */
  readonly kms: HttpListener | null
  readonly xks: HttpListener | null
  readonly offload: OffloadListener | null
  /** Relays of web hosts; `null`: none is let in. */
  readonly relay: RelayListener | null
  readonly operator: {
    /** `null`: no metrics and health over HTTP. */
    readonly http: HttpListener | null
    readonly socket: string
  }
}

const tls: Schema = {
  type: 'object',
  description: 'Serves HTTPS.',
  properties: {
    certificateFile: {
      type: 'string',
      description: 'PEM file with the certificate chain, leaf first.',
      filePath: true,
    },
    keyFile: { type: 'string', description: 'PEM file with the private key.', filePath: true },
    clientCaFile: {
      type: 'string',
      description: 'PEM file with the CAs whose client certificates are required.',
      filePath: true,
    },
  },
  required: ['certificateFile', 'keyFile'],
  additionalProperties: false,
}

const httpListener = (description: string, port: number, isOpen: boolean): Schema => ({
  type: ['object', 'null'],
  description,
  properties: {
    address: {
      type: 'string',
      description: 'IP address or host name to bind; anything but loopback needs `tls` or `insecure`.',
      minLength: 1,
      default: '127.0.0.1',
    },
    port: {
      type: 'integer',
      description: 'TCP port; 0 picks a free one.',
      minimum: 0,
      maximum: 65_535,
      default: port,
    },
    tls,
  },
  additionalProperties: false,
  default: isOpen ? {} : null,
})

const relayListener: Schema = {
  type: ['object', 'null'],
  description: 'TLS offload for relays on other hosts: TLS 1.3 with client certificates.',
  properties: {
    address: { type: 'string', description: 'IP address or host name to bind.', minLength: 1, default: '127.0.0.1' },
    port: { type: 'integer', description: 'TCP port; 0 picks a free one.', minimum: 0, maximum: 65_535, default: 8602 },
    tls: {
      ...tls,
      description: 'The gateway’s certificate for relays, and whose certificates relays must present.',
      properties: {
        ...tls.properties,
        clientCaFile: {
          type: 'string',
          description: 'PEM file with the CAs of relays.',
          filePath: true,
          derivedDefault: 'the gateway’s own authority: relays that `hsmgate tls-relay approve` let in',
        },
      },
    },
  },
  required: ['tls'],
  additionalProperties: false,
  default: null,
}

const socket = (description: string, derivedDefault: string): Schema => ({
  type: 'string',
  description,
  filePath: true,
  derivedDefault,
})

export const listen: Section<ListenConfig> = {
  schema: {
    type: 'object',
    description: 'Where each door listens; `null` shuts a door.',
    properties: {
      kms: httpListener('The AWS KMS API.', 8600, true),
      xks: httpListener('The XKS proxy API.', 8601, false),
      offload: {
        type: ['object', 'null'],
        description: 'TLS offload for local processes.',
        properties: {
          socket: socket('Unix socket of the OpenSSL provider.', '`sign.sock` in the run folder'),
          moreSockets: {
            type: 'array',
            description: 'Further Unix sockets of the same door, such as one inside the chroot of a web server.',
            items: { type: 'string', description: 'Path of a Unix socket.', filePath: true },
            uniqueItems: true,
            default: [],
          },
          mode: {
            type: 'string',
            description: 'Mode of the sockets, octal: who may connect. Every request needs a token all the same.',
            enum: ['0600', '0660', '0666'],
            default: '0660',
          },
          group: {
            type: 'string',
            description: 'Group of the sockets, by name or number, such as the one of the web servers.',
            minLength: 1,
            derivedDefault: 'the group of the gateway’s process',
          },
        },
        additionalProperties: false,
        default: {},
      },
      relay: relayListener,
      operator: {
        type: 'object',
        description: 'The operator door.',
        properties: {
          http: httpListener('Metrics and health, read-only.', 8609, true),
          socket: socket('Unix socket of the command line.', '`operator.sock` in the run folder'),
        },
        additionalProperties: false,
        default: {},
      },
    },
    additionalProperties: false,
    default: {},
  },
}
