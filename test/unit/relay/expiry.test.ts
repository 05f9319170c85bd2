/** Certificates that end while connections are open: TLS does not look again, both sides do. */
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import { loadCredentials } from '../../../src/relay/credentials.ts'
import { openRelayFixture } from '../../support/relay-fixture.ts'
import { startRelayGateway, withServerCertificate } from '../../support/relay-gateway.ts'

const { pki, key, request, startGateway, relayTo, connectTo, isSigned, close } = await openRelayFixture()
afterAll(close)
afterEach(() => void vi.useRealTimers())

const dayMs = 86_400_000
const advance = (days: number) => void vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + days * dayMs })
const timing = { pingIntervalMs: 100 }

describe('the certificate of a gateway', () => {
  it('is looked at before each request: once it has ended, another gateway signs', async () => {
    const brief = await withServerCertificate(pki, 2 * dayMs)
    await using a = await startRelayGateway(brief, key)
    await using b = await startGateway()
    await using relay = await relayTo([a, b], { caFile: brief.server.caFile, timing })
    await expect.poll(() => relay.relay.status().gateways.map(({ connections }) => connections)).toEqual([2, 2])
    await using client = await connectTo(relay)
    const before = a.asked.length
    advance(3)
    for (let round = 0; round < 20; round++) expect(isSigned(await client.sign(request))).toBe(true)
    expect([a.asked.length - before, b.asked.length]).toEqual([0, 20])
    await expect.poll(() => relay.noted).toContain(`down ${a.address}: its certificate has expired`)
    await expect.poll(() => relay.noted).toContain(`connect ${a.address}: its certificate has expired`)
  })

  it('ends the use of the only gateway', async () => {
    const brief = await withServerCertificate(pki, 2 * dayMs)
    await using gateway = await startRelayGateway(brief, key)
    await using relay = await relayTo([gateway], { caFile: brief.server.caFile, timing })
    await using client = await connectTo(relay)
    expect(isSigned(await client.sign(request))).toBe(true)
    const [status] = relay.relay.status().gateways
    expect(Date.parse(status?.validUntil ?? '') - Date.now()).toBeLessThanOrEqual(2 * dayMs)
    advance(3)
    expect(await client.sign(request, 500)).toMatchObject({ ok: false, text: 'no gateway can be reached' })
    expect(gateway.asked).toHaveLength(1)
  })
})

describe('the certificate of a relay', () => {
  it('is worth something to a gateway until its authority ends, when that is sooner', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway], { files: await pki.issue('longer', { endsInMs: 60 * dayMs }) })
    await using client = await connectTo(relay)
    expect(isSigned(await client.sign(request))).toBe(true)
    const [asked] = gateway.asked
    const daysLeft = ((asked?.peer.kind === 'relay' ? asked.peer.notAfter : 0) - Date.now()) / dayMs
    expect([Math.round(daysLeft), relay.relay.status().daysLeft]).toEqual([30, 59])
  })

  it('is in its counters', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    const { daysLeft, validUntil } = relay.relay.status()
    expect(daysLeft).toBe(29)
    expect(Date.parse(validUntil) - Date.now()).toBeGreaterThan(29 * dayMs)
    await relay.relay.renew(
      relay.config,
      loadCredentials({ ...relay.config, ...(await pki.issue('later', { endsInMs: 60 * dayMs })) }),
    )
    expect(relay.relay.status().daysLeft).toBe(59)
  })
})
