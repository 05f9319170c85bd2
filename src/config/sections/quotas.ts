/** Section `quotas`: how much one account may ask for in one Region. */
import { namePattern, type Section } from './section.ts'

export interface QuotasConfig {
  /** Undefined: on, but in development. */
  readonly enabled?: boolean
  readonly requestsPerSecond: Readonly<Record<string, number>>
  readonly keysPerRegion: number
}

export const quotas: Section<QuotasConfig> = {
  schema: {
    type: 'object',
    description: 'How much one account may ask for in one Region.',
    properties: {
      enabled: {
        type: 'boolean',
        description: 'Whether request rates and the number of keys are limited.',
        derivedDefault: 'true, in development false',
      },
      requestsPerSecond: {
        type: 'object',
        description:
          'Rates that differ from those of AWS KMS, by class: `crypto-symmetric` (HMAC and random bytes included), `crypto-rsa`, `crypto-ecc`, `crypto-ml-dsa`, `crypto-ml-kem`, `sts`, or an operation in lower case with hyphens (`create-key`).',
        propertyNames: { pattern: namePattern },
        additionalProperties: { type: 'integer', description: 'Requests in a second.', minimum: 1, maximum: 1_000_000 },
        default: {},
      },
      keysPerRegion: {
        type: 'integer',
        description: 'Keys that one account may have in one Region, whatever their state.',
        minimum: 1,
        default: 100_000,
      },
    },
    additionalProperties: false,
    default: {},
  },
}
