/** Relays: a request, an operator's approval, a certificate of the gateway's own authority; revoked when the operator says so. */
import { createPublicKey, X509Certificate } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keyIdOf } from '../../src/tls-reference.ts'
import { runOk } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { createGatewayCli, type GatewayCli } from '../support/gateway-cli.ts'

let gateway: TestGateway
let cli: GatewayCli
let folder: string
beforeAll(async () => {
  gateway = await startGateway()
  cli = await createGatewayCli(gateway)
  folder = path.join(gateway.token.directory, 'relays')
  await mkdir(folder)
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const file = (name: string) => path.join(folder, name)
const openssl = async (...words: string[]) => (await runOk('openssl', words)).toString()
const p256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']

/** Key and request as OpenSSL makes them. */
async function makeRequest(name: string, newKey: readonly string[] = p256): Promise<string> {
  const csr = file(`${name}.csr`)
  const words = [
    'req',
    '-new',
    '-nodes',
    '-keyout',
    file(`${name}.key`),
    '-subj',
    `/CN=${name}/O=Elsewhere`,
    '-out',
    csr,
  ]
  await openssl(...words, ...newKey)
  return csr
}

const approve = (name: string, csr: string, ...more: string[]) =>
  cli.run('tls', 'relay', 'approve', '--csr', csr, '--name', name, '--out', file(`${name}.pem`), ...more)
const list = async () => (await cli.json<{ relays: { name: string; digest: string }[] }>('tls', 'relay', 'list')).relays

describe('the approval of a relay', () => {
  it.each([
    ['P-256', p256],
    ['RSA', ['-newkey', 'rsa:2048']],
    ['Ed25519', ['-newkey', 'ed25519']],
  ])('makes a client certificate for a key of %s that OpenSSL verifies with the authority', async (kind, newKey) => {
    const name = `relay-${kind}`
    const approved = await approve(name, await makeRequest(name, newKey), '--days', '30')
    expect(approved).toMatchObject({ code: 0, err: '' })
    const ca = file('ca.pem')
    expect(await cli.run('tls', 'relay', 'authority', '--out', ca, '--force')).toMatchObject({ code: 0 })
    const certificate = file(`${name}.pem`)
    expect(await openssl('verify', '-x509_strict', '-CAfile', ca, '-purpose', 'sslclient', certificate)).toMatch(
      /: OK\n/,
    )
    await expect(openssl('verify', '-CAfile', ca, '-purpose', 'sslserver', certificate)).rejects.toThrow(/purpose/)

    const { subject, publicKey, validTo } = new X509Certificate(await readFile(certificate))
    expect(subject).toBe(`CN=${name}`)
    const days = (Date.parse(validTo) - Date.now()) / 86_400_000
    expect(days > 29.9 && days < 30).toBe(true)
    const key = createPublicKey(await readFile(file(`${name}.key`)))
    expect(publicKey.equals(key)).toBe(true)
    const digest = keyIdOf(key.export({ format: 'der', type: 'spki' })).toString('hex')
    expect(approved.out).toContain(digest)
    expect(await list()).toContainEqual(expect.objectContaining({ name, digest }))
  })

  it('is recorded, and its authority is a key of the gateway that no door shows', async () => {
    await approve('recorded', await makeRequest('recorded'))
    const records = await gateway.auditRecords()
    const { event } = records.findLast(({ event }) => event.eventName === 'TlsRelayApprove')!
    expect(event).toMatchObject({ requestParameters: { name: 'recorded' }, responseElements: { name: 'recorded' } })
    expect((await cli.run('key', 'show', 'relay-ca')).code).toBe(1)
  })

  it('renews the certificate of the same relay, and of it alone', async () => {
    const csr = await makeRequest('renewed')
    await approve('renewed', csr)
    expect(await approve('renewed', csr)).toMatchObject({ code: 1, err: expect.stringMatching(/is there already/) })
    expect(await approve('renewed', csr, '--force')).toMatchObject({ code: 0 })
    expect((await list()).filter(({ name }) => name === 'renewed')).toHaveLength(1)
    const stranger = await makeRequest('stranger')
    expect((await approve('renewed', stranger, '--force')).err).toMatch(/There is a relay renewed with another key/)
    expect((await approve('twin', csr)).err).toMatch(/The key of the request is that of the relay renewed/)
  })

  it('is refused for a request that its sender did not sign, or that is none', async () => {
    const der = Buffer.from(
      (await readFile(await makeRequest('forged'), 'utf8')).split('\n').slice(1, -2).join(''),
      'base64',
    )
    const at = der.length - 6
    der[at] = (der[at] as number) ^ 1
    const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
    await writeFile(file('forged.csr'), pem)
    expect((await approve('forged', file('forged.csr'))).err).toMatch(/signature of the certificate request is wrong/)
    await writeFile(file('noise.csr'), 'noise')
    expect((await approve('noise', file('noise.csr'))).err).toMatch(/no certificate request in PEM/)
    await writeFile(
      file('noise.csr'),
      pem.replace(/[A-Z]/g, 'a').replace(/-+[^-]+-+/g, (line) => line.toUpperCase()),
    )
    expect((await approve('noise', file('noise.csr'))).code).toBe(1)
    await writeFile(file('long.csr'), `${pem}${' '.repeat(40_000)}`)
    expect((await approve('long', file('long.csr'))).err).toMatch(/at most 32768 characters/)
    expect((await list()).some(({ name }) => ['forged', 'noise', 'long'].includes(name))).toBe(false)
  })

  it('is refused for a weak key, a strange name and too many days', async () => {
    const weak = await makeRequest('weak', ['-newkey', 'rsa:1024'])
    expect((await approve('weak', weak)).err).toMatch(/A relay's key is RSA of 2048 bits or more/)
    const odd = await makeRequest('odd', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1'])
    expect((await approve('odd', odd)).code).toBe(1)
    const csr = await makeRequest('good')
    expect((await approve('a b', csr)).err).toMatch(/A name has 1 to 64/)
    for (const days of ['0', '826', '1.5', 'x']) expect((await approve('good', csr, '--days', days)).code).toBe(1)
  })
})

describe('an approved relay', () => {
  it('is known after a restart, can be named in a binding, and is gone when it is revoked', async () => {
    const name = 'front'
    await approve(name, await makeRequest(name))
    const { digest } = (await list()).find((relay) => relay.name === name)!
    const { keyId } = await cli.json<{ keyId: string }>('tls', 'create-key', '--spec', 'ECC_NIST_P256')
    const bind = ['tls', 'bind', '--name', 'far', '--key', keyId, '--relay', `${name},${'ab'.repeat(32)}`]
    expect(await cli.run(...bind, '--out', file('far.ref.pem'))).toMatchObject({ code: 0, err: '' })
    const { bindings } = await cli.json<{ bindings: { relays: string[]; users: number[] }[] }>('tls', 'list')
    expect(bindings).toMatchObject([{ users: [], relays: [digest, 'ab'.repeat(32)].sort() }])

    const authority = await cli.json('tls', 'relay', 'authority')
    await gateway.restart()
    expect(await cli.json('tls', 'relay', 'authority')).toEqual(authority)
    expect(await list()).toContainEqual(expect.objectContaining({ name, digest }))
    expect(await cli.run('tls', 'relay', 'revoke', name)).toMatchObject({ code: 0, out: 'front is revoked\n' })
    expect((await list()).some((relay) => relay.name === name)).toBe(false)
    expect((await cli.run('tls', 'relay', 'revoke', name)).err).toMatch(/There is no relay front/)
    await gateway.restart()
    expect((await list()).some((relay) => relay.name === name)).toBe(false)
  })
})
