/** Section `xks`: what all external key stores of this gateway have in common. Stores themselves are made by `hsmgate xks store create`. */
import type { Section } from './section.ts'

export interface XksConfig {
  readonly deadlineMs: number
  readonly expectedHost?: string
}

export const xks: Section<XksConfig> = {
  schema: {
    type: 'object',
    description: 'External key stores of AWS KMS; the door itself is `listen.xks`.',
    properties: {
      deadlineMs: {
        type: 'integer',
        description:
          'Milliseconds until a call is answered DependencyTimeoutException. AWS KMS waits 250 ms, connection set-up included.',
        minimum: 50,
        maximum: 10_000,
        default: 200,
      },
      expectedHost: {
        type: 'string',
        description: 'Host that clients sign, where a proxy in front of the door rewrites the Host header.',
        minLength: 1,
      },
    },
    additionalProperties: false,
    default: {},
  },
}
