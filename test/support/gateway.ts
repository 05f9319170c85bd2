/**
 * A whole gateway for tests: SoftHSM2 token, catalog, journal and doors in a temporary folder, on free ports of loopback, in this process
 * (its workers are processes as always).
 *
 *   await using gateway = await startGateway()
 *   const kms = gateway.client()
 */
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { KMSClient, type KMSClientConfig } from '@aws-sdk/client-kms'
import { askSocket, type Question } from '../../src/cli/operator-client.ts'
import { parseConfig } from '../../src/config/load.ts'
import { type Gateway, type GatewayOverrides, openGateway } from '../../src/gateway.ts'
import { startKnowing } from './known-capabilities.ts'
import { noteOperations } from './observed-operations.ts'
import { createTestToken, type TestToken } from './softhsm.ts'

export const testAccount = '000000000000'
export const testRegion = 'us-east-1'

export interface TestCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

export interface TestGateway extends AsyncDisposable {
  readonly gateway: Gateway
  readonly endpoint: string
  readonly credentials: TestCredentials
  readonly token: TestToken
  /** State folder: catalog.sqlite, audit/, run/. */
  readonly directory: string
  /** A client of the AWS SDK, as the administrator unless told; destroyed with the gateway. */
  client(options?: Partial<KMSClientConfig>): KMSClient
  /** Environment for the AWS CLI as the administrator. */
  readonly cliEnvironment: Readonly<Record<string, string>>
  /** A user with one identity policy (a JSON document), and a client for it. */
  createUser(name: string, policy?: unknown, account?: string): Promise<TestCredentials>
  /** A command of the operator socket. */
  ask<T>(noun: string, verb: string, question?: Question): Promise<T>
  /** Lines of the audit journal so far. */
  auditRecords(): Promise<readonly { readonly seq: number; readonly event: Record<string, unknown> }[]>
  /** Closes the gateway and opens it again on the same state. */
  restart(): Promise<void>
}

export interface TestGatewayOptions {
  /** Top-level keys of the configuration that differ from the fixture's. */
  readonly config?: Readonly<Record<string, unknown>>
  /** A token to use instead of a new one; not removed. */
  readonly token?: TestToken
  readonly overrides?: GatewayOverrides
}

export async function startGateway(options: TestGatewayOptions = {}): Promise<TestGateway> {
  const token = options.token ?? (await createTestToken())
  const directory = path.join(token.directory, 'state')
  const config = parseConfig(
    JSON.stringify({
      development: true,
      accounts: [testAccount, '111122223333'],
      tokens: {
        softhsm: {
          module: token.module,
          label: token.label,
          pinFile: token.pinFile,
          profile: 'softhsm',
          env: token.env,
        },
      },
      listen: {
        kms: { address: '127.0.0.1', port: 0 },
        operator: { http: { address: '127.0.0.1', port: 0 } },
      },
      log: { level: 'fatal' },
      ...options.config,
    }),
    path.join(directory, 'config.json'),
  )
  const open = () => openGateway(config, options.overrides)
  const isUsual = config.tokens.softhsm?.label === token.label && config.tokens.softhsm.profile === 'softhsm'
  let gateway = await (isUsual ? startKnowing('softhsm', token, directory, open) : open())
  const clients: KMSClient[] = []

  const createUser = async (name: string, policy?: unknown, account = testAccount): Promise<TestCredentials> => {
    const { administration } = gateway
    await administration.createUser(account, name)
    if (policy !== undefined) await administration.putPolicy(account, name, 'test', JSON.stringify(policy))
    const { accessKeyId, secretAccessKey } = await administration.createAccessKey(account, name)
    return { accessKeyId, secretAccessKey }
  }
  const credentials = await createUser('administrator', {
    Version: '2012-10-17',
    Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }],
  })

  return {
    get gateway() {
      return gateway
    },
    get endpoint() {
      return gateway.endpoints.kms as string
    },
    credentials,
    token,
    directory,
    client(overrides = {}) {
      const endpoint = gateway.endpoints.kms as string
      const client = new KMSClient({ endpoint, region: testRegion, credentials, maxAttempts: 1, ...overrides })
      clients.push(client)
      return client
    },
    cliEnvironment: {
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      AWS_DEFAULT_REGION: testRegion,
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_CONFIG_FILE: '/dev/null',
      AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
      AWS_PAGER: '',
      PATH: '/usr/bin:/bin',
    },
    createUser,
    ask: (noun, verb, question = {}) => askSocket(config.listen.operator.socket, noun, verb, question),
    async auditRecords() {
      const text = await readFile(path.join(config.audit.directory, '00000001.jsonl'), 'utf8')
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as { seq: number; event: Record<string, unknown> })
    },
    async restart() {
      await gateway[Symbol.asyncDispose]()
      gateway = await open()
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroy()
      await gateway[Symbol.asyncDispose]()
      await noteOperations(config.audit.directory)
      if (options.token === undefined) await token[Symbol.asyncDispose]()
    },
  }
}
