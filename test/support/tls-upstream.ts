/** A server that lets in who proves to have one key, for proxies and other clients that have a certificate. */
import type { KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TLSSocket } from 'node:tls'
import { type CommandResult, run, runOk } from './command.ts'
import { makeKeyFileSite } from './tls-sites.ts'

export interface Upstream extends AsyncDisposable {
  readonly port: number
  /** PEM file: its own certificate, for `localhost`, which also issued the client's. */
  readonly certificate: string
  /** PEM file: `CN=client`. */
  readonly clientCertificate: string
}

/** It answers with the type of the client's key and the version of TLS, e.g. `rsa TLSv1.3`. */
export async function startUpstream(client: { readonly publicKey: KeyObject }): Promise<Upstream> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-upstream-'))
  const { certificate, reference } = await makeKeyFileSite(path.join(folder, 'upstream'))
  const [publicKey, clientCertificate] = [path.join(folder, 'client.pub'), path.join(folder, 'client.crt')]
  writeFileSync(publicKey, client.publicKey.export({ type: 'spki', format: 'pem' }))
  const issuer = ['-CA', certificate, '-CAkey', reference, '-days', '2']
  const subject = ['-subj', '/CN=client', '-force_pubkey', publicKey]
  await runOk('openssl', ['x509', '-new', ...subject, ...issuer, '-out', clientCertificate])
  const [key, cert] = [readFileSync(reference), readFileSync(certificate)]
  const options = { key, cert, ca: cert, requestCert: true, rejectUnauthorized: true }
  const server = createServer(options, (request, response) => {
    const socket = request.socket as TLSSocket
    response.end(`${socket.getPeerX509Certificate()?.publicKey.asymmetricKeyType} ${socket.getProtocol()}`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    certificate,
    clientCertificate,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** `reference`: of the client. `env` brings the provider. */
export function curlUpstream(
  { port, certificate, clientCertificate }: Upstream,
  { reference }: { readonly reference: string },
  env: Readonly<Record<string, string>>,
  ...args: readonly string[]
): Promise<CommandResult> {
  const place = ['--connect-to', `localhost:443:127.0.0.1:${port}`, 'https://localhost/']
  const client = ['--cert', clientCertificate, '--key', reference, '--cacert', certificate]
  return run('curl', ['-sS', ...args, ...client, ...place], { env: { PATH: process.env.PATH ?? '', ...env } })
}
