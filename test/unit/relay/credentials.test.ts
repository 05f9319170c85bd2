import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadCredentials } from '../../../src/relay/credentials.ts'
import { openRelayFixture } from '../../support/relay-fixture.ts'
import { makeRelayPki } from '../../support/relay-gateway.ts'

const dayMs = 86_400_000
const { pki, files, request, startGateway, relayTo, connectTo, close } = await openRelayFixture()
afterAll(close)

const load = (changes: Partial<Parameters<typeof loadCredentials>[0]> = {}, nowMs?: number) =>
  loadCredentials({ ...files, caFile: pki.server.caFile, ...changes }, nowMs)
function write(name: string, text: string): string {
  const file = path.join(pki.folder, name)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

describe('the credentials of a relay', () => {
  it('say whose they are and until when', () => {
    const { subject, digest, notAfter } = load()
    expect([subject, digest]).toEqual(['CN=web-host', files.digest])
    expect(notAfter - Date.now()).toBeGreaterThan(29 * dayMs)
  })

  it('are refused when the certificate belongs to another key', async () => {
    const other = await pki.issue('other')
    expect(() => load({ certificateFile: other.certificateFile })).toThrow(/does not belong to the key/)
  })

  it('are refused once the certificate has expired', () => {
    expect(() => load({}, Date.now() + 31 * dayMs)).toThrow(/expired at/)
  })

  it('are refused while others can read the key', () => {
    const keyFile = write('open.key', readFileSync(files.keyFile, 'utf8'))
    chmodSync(keyFile, 0o640)
    expect(() => load({ keyFile })).toThrow(/open to other users/)
  })

  it.each([
    ['certificateFile', 'is not a certificate in PEM'],
    ['keyFile', 'is not a private key in PEM'],
    ['caFile', 'is not a certificate in PEM'],
  ] as const)('are refused when %s is missing, too long or something else', (option, text) => {
    expect(() => load({ [option]: path.join(pki.folder, 'nowhere') })).toThrow(/nowhere does not exist/)
    expect(() => load({ [option]: write(`${option}.txt`, 'secret words') })).toThrow(text)
    expect(() => load({ [option]: write(`${option}.txt`, 'secret words') })).not.toThrow(/secret words/)
    expect(() => load({ [option]: write(`${option}.big`, 'x'.repeat(1024 * 1024 + 1)) })).toThrow(
      /longer than a megabyte/,
    )
  })
})

describe('a relay that is renewed', () => {
  const sign = async (socket: string) => {
    await using client = await connectTo({ socket })
    return (await client.sign(request)).ok
  }

  it('shows the new certificate, and answers what the old connections still carry', async () => {
    await using gateway = await startGateway()
    await using running = await relayTo([gateway])
    const fresh = await pki.issue('fresh')
    await using client = await connectTo(running)
    gateway.onSign = ({ peer }) =>
      peer.kind === 'relay' && peer.spkiDigest === files.digest ? { afterMs: 200 } : 'sign'
    const open = client.sign(request)
    await expect.poll(() => gateway.asked.length).toBe(1)
    expect(await running.relay.renew(running.config, load(fresh))).toBeUndefined()
    expect(await sign(running.socket)).toBe(true)
    expect((await open).ok).toBe(true)
    expect(gateway.asked.map(({ peer }) => peer.kind === 'relay' && peer.spkiDigest)).toEqual([
      files.digest,
      fresh.digest,
    ])
    await expect.poll(() => gateway.connections).toBe(2)
  })

  it('goes to other gateways when it is told', async () => {
    await using before = await startGateway()
    await using after = await startGateway()
    await using running = await relayTo([before])
    const [host, port] = after.address.split(':')
    const place = { name: after.address, host: String(host), port: Number(port), serverName: String(host) }
    await running.relay.renew({ ...running.config, gateways: [place] }, load())
    expect(await sign(running.socket)).toBe(true)
    expect([before.asked.length, after.asked.length]).toEqual([0, 1])
    await expect.poll(() => before.connections).toBe(0)
  })

  it('stays with the old certificate when no gateway takes the new one', async () => {
    await using gateway = await startGateway()
    await using running = await relayTo([gateway])
    const stranger = await (await makeRelayPki(mkdtempSync(path.join(pki.folder, 'other-')))).issue('stranger')
    const reasons = await running.relay.renew(running.config, load(stranger))
    expect(reasons).toEqual([expect.stringMatching(/does not take the certificate/)])
    expect(await sign(running.socket)).toBe(true)
    expect(gateway.asked[0]?.peer).toMatchObject({ spkiDigest: files.digest })
  })
})
