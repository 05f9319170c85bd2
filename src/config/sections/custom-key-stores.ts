/** Section `customKeyStores`: how external key stores of our own KMS reach their proxies. */
import type { Problem } from '../../problem.ts'
import type { Section } from './section.ts'

export interface CustomKeyStoresConfig {
  readonly strict: boolean
  readonly caFile?: string
  readonly clientCertificateFile?: string
  readonly clientKeyFile?: string
  readonly timeoutMs: number
  readonly requestsPerSecond: number
  readonly doubleEncryption: boolean
}

/** What AWS KMS waits for an answer of a proxy (XKS proxy API specification, "Performance and availability"). */
const awsTimeoutMs = 250

export const customKeyStores: Section<CustomKeyStoresConfig> = {
  schema: {
    type: 'object',
    description: 'Custom key stores.',
    properties: {
      strict: {
        type: 'boolean',
        description:
          'Whether proxies of external key stores are reached as AWS KMS does: by name, at port 443, with certificates of public authorities, within 250 ms.',
        default: true,
      },
      caFile: {
        type: 'string',
        description: 'Certificates (PEM) of private authorities that proxies are also trusted by. Not when `strict`.',
        filePath: true,
      },
      clientCertificateFile: {
        type: 'string',
        description: 'Client certificate (PEM) shown to proxies that ask for one.',
        filePath: true,
      },
      clientKeyFile: {
        type: 'string',
        description: 'Private key (PEM) of the client certificate, mode 0600.',
        filePath: true,
      },
      timeoutMs: {
        type: 'integer',
        description: 'How long one request to a proxy may take, in milliseconds. Only 250 when `strict`.',
        minimum: 50,
        maximum: 2000,
        default: awsTimeoutMs,
      },
      requestsPerSecond: {
        type: 'integer',
        description: 'Cryptographic requests per second and custom key store; more are throttled.',
        minimum: 1,
        maximum: 1_000_000,
        default: 1800,
      },
      doubleEncryption: {
        type: 'boolean',
        description:
          'Whether new KMS keys of external key stores encrypt under a key of our own module first, so that neither side can decrypt alone. Keys keep what they were made with.',
        default: true,
      },
    },
    additionalProperties: false,
    default: {},
  },
  check({ strict, caFile, clientCertificateFile, clientKeyFile, timeoutMs }, at) {
    const problems: Problem[] = []
    const remedy = `remove it, or set ${at}.strict to false`
    if (strict && caFile !== undefined) problems.push({ at: `${at}.caFile`, cause: 'is not strict', remedy })
    if (strict && timeoutMs !== awsTimeoutMs) problems.push({ at: `${at}.timeoutMs`, cause: 'is not strict', remedy })
    if ((clientCertificateFile === undefined) !== (clientKeyFile === undefined)) {
      const cause = 'has a client certificate without its key, or a key without its certificate'
      problems.push({ at, cause, remedy: 'name both files, or none' })
    }
    return problems
  },
}
