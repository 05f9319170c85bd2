/**
 * `./hsmgate serve` as a process of its own, for tests that kill it, cut its disk off or count what it does at start. Configuration, state
 * and token lie in the token's temporary folder, ports are free ones.
 *
 *   await using token = await createTestToken()
 *   await using served = await serveGateway(token)
 *   served.kill('SIGKILL')
 */
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { KMSClient } from '@aws-sdk/client-kms'
import { askSocket, type Question } from '../../src/cli/operator-client.ts'
import { type TestCredentials, testAccount, testRegion } from './gateway.ts'
import { type HsmgateProcess, startHsmgate } from './hsmgate-process.ts'
import { lendCapabilities } from './known-capabilities.ts'
import type { TestToken } from './softhsm.ts'

/** As the gateway shows them when it is ready. */
export interface Endpoints {
  readonly kms: string
  readonly xks: string
  readonly operator: string
  readonly operatorSocket: string
  readonly offload: readonly string[]
}

export interface ServedGateway extends HsmgateProcess {
  readonly pid: number
  readonly endpoint: string
  readonly endpoints: Endpoints
  readonly operatorEndpoint: string
  readonly credentials: TestCredentials
  /** State folder: catalog.sqlite, audit/, run/. */
  readonly directory: string
  /** A client of the AWS SDK as the administrator, which sends every request once; destroyed with the process. */
  client(): KMSClient
  /** A command of the operator socket. */
  ask<T>(noun: string, verb: string, question?: Question): Promise<T>
}

export interface ServeOptions {
  /** Top-level keys of the configuration that differ. */
  readonly config?: Readonly<Record<string, unknown>>
  readonly environment?: NodeJS.ProcessEnv
  /** A program and its arguments that run the gateway; default: the launcher alone. */
  readonly through?: readonly string[]
}

const administrators = new Map<string, TestCredentials>()

/** Writes the configuration of a gateway on `token`; answers its file. */
export async function writeServeConfig(token: TestToken, config: ServeOptions['config'] = {}): Promise<string> {
  const directory = path.join(token.directory, 'state')
  const file = path.join(directory, 'config.json')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const { module, label, pinFile, env } = token
  const document = {
    development: true,
    tokens: { softhsm: { module, label, pinFile, profile: 'softhsm', env } },
    listen: {
      kms: { address: '127.0.0.1', port: 0 },
      operator: { http: { address: '127.0.0.1', port: 0 } },
    },
    ...config,
  }
  await writeFile(file, JSON.stringify(document), { mode: 0o600 })
  return file
}

/** Resolves when its doors are open. The first one on a state folder makes the administrator, later ones know him. */
export async function serveGateway(token: TestToken, options: ServeOptions = {}): Promise<ServedGateway> {
  const file = await writeServeConfig(token, options.config)
  if (options.config?.tokens === undefined) await lendCapabilities('softhsm', token, path.dirname(file))
  const running = startHsmgate(['serve', '--config', file, '--json'], options.environment, options.through)
  try {
    const [text] = await running.output(/\{\s*"ready": true[\s\S]*?\n\}/)
    const { endpoints } = JSON.parse(text) as { endpoints: Endpoints }
    const ask = <T>(noun: string, verb: string, question: Question = {}): Promise<T> =>
      askSocket<T>(endpoints.operatorSocket, noun, verb, question)
    const directory = path.dirname(file)
    const credentials = administrators.get(directory) ?? (await createAdministrator(ask))
    administrators.set(directory, credentials)
    const clients: KMSClient[] = []
    return {
      ...running,
      endpoint: endpoints.kms,
      endpoints,
      operatorEndpoint: endpoints.operator,
      credentials,
      directory,
      ask,
      client() {
        const client = new KMSClient({ endpoint: endpoints.kms, region: testRegion, credentials, maxAttempts: 1 })
        clients.push(client)
        return client
      },
      async [Symbol.asyncDispose]() {
        for (const client of clients) client.destroy()
        await running[Symbol.asyncDispose]()
      },
    }
  } catch (cause) {
    await running[Symbol.asyncDispose]()
    throw cause
  }
}

/**
 * Another gateway with the same keys, principals and bindings: a copy of what `serveGateway` left of one that has been stopped, token and state, in
 * a folder of its own. From then on they know nothing of each other.
 */
export async function copyServed(token: TestToken): Promise<TestToken> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-token-'))
  const copy: TestToken = {
    ...token,
    directory,
    pinFile: path.join(directory, 'softhsm/pin'),
    env: { SOFTHSM2_CONF: path.join(directory, 'softhsm/softhsm2.conf') },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  }
  for (const folder of ['softhsm', 'state']) {
    await cp(path.join(token.directory, folder), path.join(directory, folder), { recursive: true })
  }
  const conf = await readFile(token.env.SOFTHSM2_CONF, 'utf8')
  await writeFile(copy.env.SOFTHSM2_CONF, conf.replaceAll(token.directory, directory))
  const administrator = administrators.get(path.join(token.directory, 'state'))
  if (administrator !== undefined) administrators.set(path.join(directory, 'state'), administrator)
  return copy
}

async function createAdministrator(ask: ServedGateway['ask']): Promise<TestCredentials> {
  const name = 'administrator'
  const document = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] }
  await ask('principal', 'create', { name, account: testAccount })
  await ask('principal-policy', 'put', {
    name,
    account: testAccount,
    policyName: 'test',
    document: JSON.stringify(document),
  })
  const { accessKeyId, secretAccessKey } = await ask<TestCredentials>('principal-key', 'create', {
    name,
    account: testAccount,
  })
  return { accessKeyId, secretAccessKey }
}

/** Whether a process is there: not a zombie, which a killed one may be until its parent looks. */
export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}/exe`)
}
