/** Section `offload`: bounds of the door through which TLS servers have handshakes signed. */
import type { Section } from './section.ts'

export interface OffloadConfig {
  readonly maxBudgetMs: number
  readonly maxMessageBytes: number
  readonly maxPending: number
  readonly maxConnections: number
  readonly maxInFlight: number
  readonly idleSeconds: number
}

export const offload: Section<OffloadConfig> = {
  schema: {
    type: 'object',
    description:
      'TLS offload: bounds of the signing socket. What a token may sign, and how often, is said by its binding.',
    properties: {
      maxBudgetMs: {
        type: 'integer',
        description: 'Longest time for one signature; a caller’s own budget is cut to this.',
        minimum: 10,
        maximum: 10_000,
        default: 1000,
      },
      maxMessageBytes: {
        type: 'integer',
        description: 'Longest message that is signed.',
        minimum: 256,
        maximum: 16_384,
        default: 16_384,
      },
      maxPending: {
        type: 'integer',
        description: 'Signatures under way at one time, waiting ones included; more are answered BUSY.',
        minimum: 1,
        maximum: 8192,
        default: 1024,
      },
      maxConnections: {
        type: 'integer',
        description:
          'Connections at one time. When all are taken, an idle one that never presented a valid token makes room.',
        minimum: 1,
        maximum: 1_000_000,
        default: 16_384,
      },
      maxInFlight: {
        type: 'integer',
        description: 'Open requests of one local connection; a relay may have sixteen times as many.',
        minimum: 1,
        maximum: 4095,
        default: 64,
      },
      idleSeconds: {
        type: 'integer',
        description:
          'Silence after which a connection is closed. One that never presented a valid token is closed after 30 seconds at most.',
        minimum: 1,
        maximum: 86_400,
        default: 600,
      },
    },
    additionalProperties: false,
    default: {},
  },
}
