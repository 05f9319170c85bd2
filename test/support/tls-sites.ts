/**
 * Sites whose keys are in a token: what a web server gets for each key (certificate and key reference, as the commands of the operator
 * make them), and clients that shake hands.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { get } from 'node:https'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TLSSocket } from 'node:tls'
import { fileURLToPath } from 'node:url'
import type { Question } from '../../src/cli/operator-client.ts'
import { encodeReferencePem } from '../../src/tls-reference.ts'
import { runOk } from './command.ts'
import { type BindOptions, type BoundKey, bindKey, createTlsKey } from './offload.ts'
import { writeOpensslConf } from './provider.ts'

const template = readFileSync(fileURLToPath(new URL('../../deploy/openssl/openssl.cnf', import.meta.url)), 'utf8')

export interface TlsSite extends BoundKey {
  /** PEM files. */
  readonly certificate: string
  readonly reference: string
}

export interface TlsSites extends Disposable {
  readonly folder: string
  /** For the environment of a server: deploy/openssl/openssl.cnf with the gateway's socket. */
  readonly env: Readonly<Record<string, string>>
  make(spec: string, binding?: BindOptions): Promise<TlsSite>
}

interface Asked {
  ask<T>(noun: string, verb: string, question?: Question): Promise<T>
}

/** deploy/openssl/openssl.cnf as `folder`/openssl.cnf, for this socket. */
export function writeSiteConf(folder: string, socket: string, deadlineMs: number): string {
  const text = template.replace('hsmgate-deadline-ms = 1000', `hsmgate-deadline-ms = ${deadlineMs}`)
  return writeOpensslConf(folder, text, socket)
}

/** `socket`: of the gateway or relay that signs. */
export function openTlsSites(gateway: Asked, socket: string, deadlineMs = 5000): TlsSites {
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-sites-'))
  chmodSync(folder, 0o755)
  const conf = writeSiteConf(folder, socket, deadlineMs)
  let count = 0
  return {
    folder,
    env: { OPENSSL_CONF: conf },
    async make(spec, binding) {
      const key = await bindKey(gateway as never, await createTlsKey(gateway as never, spec), binding)
      const { certificate } = await gateway.ask<{ certificate: string }>('tls', 'self-signed', {
        key: key.keyId,
        san: 'localhost',
        days: 2,
      })
      const publicKey = key.publicKey.export({ type: 'spki', format: 'der' })
      const file = (name: string, text: string) => {
        const place = path.join(folder, `${count}.${name}`)
        writeFileSync(place, text, { mode: 0o600 })
        return place
      }
      count++
      return {
        ...key,
        certificate: file('crt.pem', certificate),
        reference: file('ref.pem', encodeReferencePem({ publicKey, token: key.token })),
      }
    },
    [Symbol.dispose]() {
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const newKeys = { ec: ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'], ed25519: ['ed25519'] }

/** What a site for `localhost` has without a token: a certificate, and in place of the reference its private key; `<place>.crt` and `.key`. */
export async function makeKeyFileSite(
  place: string,
  keyType: keyof typeof newKeys = 'ec',
): Promise<Pick<TlsSite, 'certificate' | 'reference'>> {
  const [certificate, reference] = [`${place}.crt`, `${place}.key`]
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
  const newKey = ['-newkey', ...newKeys[keyType], '-noenc', '-keyout', reference]
  await runOk('openssl', ['req', '-x509', ...newKey, ...names, '-out', certificate])
  return { certificate, reference }
}

export interface Visit {
  readonly status: number
  /** TLS version, e.g. `TLSv1.3`. */
  readonly protocol: string
  /** Key type of the server's certificate, e.g. `rsa`. */
  readonly keyType: string
  readonly isReused: boolean
}

/** One request on a connection of its own; the certificate is verified. `options`: of TLS and of the request. */
export function visit(
  port: number,
  sites: readonly Pick<TlsSite, 'certificate'>[],
  options: object = {},
): Promise<Visit> {
  return new Promise((resolve, reject) => {
    const all = {
      port,
      host: '127.0.0.1',
      servername: 'localhost',
      agent: false,
      ca: sites.map(({ certificate }) => readFileSync(certificate)),
      ...options,
    }
    get(all, (response) => {
      const socket = response.socket as TLSSocket
      const visited = {
        status: response.statusCode ?? 0,
        protocol: socket.getProtocol() ?? '',
        keyType: socket.getPeerX509Certificate()?.publicKey.asymmetricKeyType ?? '',
        isReused: socket.isSessionReused(),
      }
      response.resume()
      response.on('end', () => resolve(visited))
      response.on('error', reject)
    }).on('error', reject)
  })
}

/** Clients that visit a site without a pause until they are told to stop. */
export function startVisitors(port: number, site: Pick<TlsSite, 'certificate'>, clients: number) {
  return startVisits(clients, async () => {
    const { status, isReused } = await visit(port, [site])
    if (status !== 200 || isReused) throw new Error(`${status} ${isReused}`)
  })
}

/** Clients that do one thing without a pause until they are told to stop; `visitOnce` rejects when it failed. */
export function startVisits(clients: number, visitOnce: () => Promise<void>) {
  const failures: unknown[] = []
  let isDone = false
  let served = 0
  const client = async () => {
    while (!isDone) {
      try {
        await visitOnce()
        served++
      } catch (failure) {
        failures.push(failure)
      }
    }
  }
  const running = Array.from({ length: clients }, client)
  return {
    failures,
    served: () => served,
    /** Resolves after so many more visits, or at the first failure. */
    async more(count: number): Promise<void> {
      const enough = served + count
      while (served < enough && failures.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    },
    async stop(): Promise<void> {
      isDone = true
      await Promise.all(running)
    },
  }
}
