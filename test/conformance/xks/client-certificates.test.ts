/** Mutual TLS, off by default: the CA is the listener's, the names are each store's. A certificate that was renewed is served without a restart. */
import 'reflect-metadata' // @peculiar/x509 cannot be loaded without it
import { webcrypto } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { connect } from 'node:tls'
import { BasicConstraintsExtension, SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { completeDevelopmentTls } from '../../../src/cli/development-ca.ts'
import { createListener } from '../../../src/transport/xks/listener.ts'
import { createTestToken, type TestToken } from '../../support/softhsm.ts'
import {
  createStore,
  createXksClient,
  metadataOf,
  startXksGateway,
  type XksGateway,
  type XksStore,
} from '../../support/xks-client.ts'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const dayMs = 86_400_000

interface Pair {
  readonly cert: string
  readonly key: string
}

async function makePem(keys: webcrypto.CryptoKeyPair): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  const lines = (der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')
  return `-----BEGIN PRIVATE KEY-----\n${lines}\n-----END PRIVATE KEY-----\n`
}

async function issue(
  subject: string,
  names: readonly string[],
  signer?: { keys: webcrypto.CryptoKeyPair; issuer: string },
  days = 1,
): Promise<Pair & { keys: webcrypto.CryptoKeyPair }> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await X509CertificateGenerator.create({
    serialNumber: '01',
    subject,
    issuer: signer?.issuer ?? subject,
    notBefore: new Date(Date.now() - 2 * dayMs),
    notAfter: new Date(Date.now() + days * dayMs),
    publicKey: keys.publicKey,
    signingKey: signer?.keys.privateKey ?? keys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(signer === undefined, undefined, true),
      ...(names.length === 0
        ? []
        : [new SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value })))]),
    ],
  })
  return { cert: `${certificate.toString('pem')}\n`, key: await makePem(keys), keys }
}

let token: TestToken
let xks: XksGateway
let named: XksStore
let open: XksStore
let clients: Record<'right' | 'byName' | 'wrongName' | 'expired' | 'foreign', Pair>

beforeAll(async () => {
  token = await createTestToken()
  const ca = await issue('CN=clients', [])
  const signer = { keys: ca.keys, issuer: 'CN=clients' }
  const clientCaFile = path.join(token.directory, 'clients.pem')
  await writeFile(clientCaFile, ca.cert)
  clients = {
    right: await issue('CN=cks.kms.us-east-1.amazonaws.com', [], signer),
    byName: await issue('CN=other', ['cks.kms.us-east-1.amazonaws.com'], signer),
    wrongName: await issue('CN=cks.kms.eu-west-1.amazonaws.com', [], signer),
    expired: await issue('CN=cks.kms.us-east-1.amazonaws.com', [], signer, -1),
    foreign: await issue('CN=cks.kms.us-east-1.amazonaws.com', []),
  }
  xks = await startXksGateway({ token, tls: { clientCaFile } })
  named = await createStore(xks, 'named', { clientNames: 'cks.kms.us-east-1.amazonaws.com' })
  open = await createStore(xks, 'open')
}, 180_000)

afterAll(async () => {
  await xks?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

async function ask(store: XksStore, pair: Pair | undefined) {
  using client = createXksClient(xks, store, pair === undefined ? {} : { cert: pair.cert, key: pair.key })
  return await client.call('health', metadataOf('KmsHealthCheck'))
}

describe('a client certificate', () => {
  it('of the CA lets in, where its common or alternative name is one of the store’s', async () => {
    expect(await ask(named, clients.right)).toMatchObject({ status: 200 })
    expect(await ask(named, clients.byName)).toMatchObject({ status: 200 })
    expect(await ask(named, clients.wrongName)).toMatchObject({
      status: 401,
      body: { errorName: 'AuthenticationFailedException' },
    })
    expect(await ask(open, clients.wrongName)).toMatchObject({ status: 200 })
  })

  it('that has expired, is of another CA or missing is refused by TLS itself', async () => {
    for (const pair of [clients.expired, clients.foreign, undefined]) {
      await expect(ask(named, pair)).rejects.toThrow()
    }
  })
})

describe('the server certificate', () => {
  it('is replaced without a restart', async () => {
    const [one, two] = [path.join(token.directory, 'one'), path.join(token.directory, 'two')]
    for (const folder of [one, two]) {
      await mkdir(folder)
      await completeDevelopmentTls(folder)
    }
    const read = async (folder: string) => ({
      cert: await readFile(path.join(folder, 'server.pem')),
      key: await readFile(path.join(folder, 'server.key')),
    })
    await using listener = createListener({ answer: async () => ({ status: 200, body: '{}' }), tls: await read(one) })
    const { port } = await listener.listen({ host: '127.0.0.1', port: 0 })
    const trusts = async (folder: string): Promise<boolean> => {
      const ca = await readFile(path.join(folder, 'ca.pem'))
      return new Promise((resolve) => {
        const socket = connect({ host: '127.0.0.1', port, ca, servername: 'localhost' }, () => {
          socket.destroy()
          resolve(true)
        })
        socket.on('error', () => resolve(false))
      })
    }
    expect([await trusts(one), await trusts(two)]).toEqual([true, false])
    listener.replaceCertificate(await read(two))
    expect([await trusts(one), await trusts(two)]).toEqual([false, true])
    expect(() => listener.replaceCertificate({ cert: 'no certificate', key: 'no key' })).toThrow()
    expect(await trusts(two)).toBe(true)
  })
})
