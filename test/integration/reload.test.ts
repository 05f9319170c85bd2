/** SIGHUP of a gateway that serves: what is in use at once, and that no request is lost meanwhile. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { Agent } from 'node:https'
import path from 'node:path'
import { connect } from 'node:tls'
import { CreateKeyCommand, EncryptCommand, KMSClient, ListKeysCommand } from '@aws-sdk/client-kms'
import { expect, it } from 'vitest'
import { testRegion } from '../support/gateway.ts'
import { serveGateway, writeServeConfig } from '../support/served-gateway.ts'
import { createTestToken } from '../support/softhsm.ts'

function makeCertificate(directory: string, name: string): { certificateFile: string; keyFile: string } {
  const certificateFile = path.join(directory, `${name}.pem`)
  const keyFile = path.join(directory, `${name}.key`)
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1']
  execFileSync('/usr/bin/openssl', [...request, ...subject, '-keyout', keyFile, '-out', certificateFile], {
    stdio: 'ignore',
  })
  execFileSync('/usr/bin/chmod', ['600', keyFile])
  return { certificateFile, keyFile }
}

function certificateName(endpoint: string): Promise<unknown> {
  const { hostname, port } = new URL(endpoint)
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false }, () => {
    resolve(socket.getPeerCertificate().subject.CN)
    socket.destroy()
  })
  socket.on('error', reject)
  return promise
}

function childrenOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter((child) => child !== '')
}

it('a reload changes certificates, request rates and the PIN file of a gateway that goes on serving', async () => {
  await using token = await createTestToken()
  const listen = (tls: object) => ({
    kms: { address: '127.0.0.1', port: 0, tls },
    xks: { address: '127.0.0.1', port: 0, tls },
    relay: { address: '127.0.0.1', port: 0, tls },
    operator: { http: { address: '127.0.0.1', port: 0 } },
  })
  const one = makeCertificate(token.directory, 'one')
  await using gateway = await serveGateway(token, { config: { listen: listen(one) } })
  const { endpoint, credentials } = gateway
  const { kms: kmsEndpoint, xks, offload } = gateway.endpoints
  const tlsEndpoints = [kmsEndpoint, xks, ...offload.filter((each) => each.startsWith('tls:'))]
  expect(tlsEndpoints).toHaveLength(3)
  for (const each of tlsEndpoints) expect(await certificateName(each)).toBe('one')
  const agent = new Agent({ rejectUnauthorized: false })
  const kms = new KMSClient({
    endpoint,
    region: testRegion,
    credentials,
    maxAttempts: 1,
    requestHandler: { httpsAgent: agent },
  })
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  const request = { KeyId: KeyMetadata!.KeyId!, Plaintext: Buffer.from('x') }

  const workers = new Set(childrenOf(gateway.pid))
  let isDone = false
  let served = 0
  const work = (async () => {
    while (!isDone) {
      await kms.send(new EncryptCommand(request))
      served++
    }
  })()

  const pinFile = path.join(token.directory, 'pin-elsewhere')
  await rename(token.pinFile, pinFile)
  await writeServeConfig(
    { ...token, pinFile },
    {
      listen: listen(makeCertificate(token.directory, 'two')),
      quotas: { enabled: true, requestsPerSecond: { 'list-keys': 1 } },
      regions: ['us-east-1', 'eu-central-1'],
    },
  )
  gateway.kill('SIGHUP')
  const told = await gateway.output(/need a restart: (.+)\n {2}remedy: SIGUSR2/)
  expect(told[1]).toBe('regions')
  for (const each of tlsEndpoints) expect(await certificateName(each)).toBe('two')
  const lists = await Promise.allSettled(Array.from({ length: 5 }, () => kms.send(new ListKeysCommand({}))))
  const refused = lists.filter((answer) => answer.status === 'rejected')
  expect(refused.length).toBeGreaterThan(0)
  expect(refused[0]?.reason).toMatchObject({ name: 'ThrottlingException' })
  // The old workers are gone, and the new ones logged in with the file that is where the old one is not.
  await expect.poll(() => childrenOf(gateway.pid).some((pid) => workers.has(pid)), { timeout: 60_000 }).toBe(false)
  expect(childrenOf(gateway.pid).length).toBeGreaterThanOrEqual(workers.size)

  await writeFile(path.join(token.directory, 'two.pem'), 'no certificate')
  gateway.kill('SIGHUP')
  await gateway.output(/listen\.kms\.tls: the certificates cannot be used|configuration not reloaded/)
  expect(await certificateName(endpoint)).toBe('two')

  isDone = true
  await work
  expect(served).toBeGreaterThan(0)
  kms.destroy()
}, 180_000)
