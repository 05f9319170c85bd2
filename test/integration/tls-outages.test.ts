/**
 * What a gateway and its token go through while clients shake hands with NGINX, Apache and HAProxy: a hand-over, a restart, a death, dead
 * workers, a lost token, a login that the token ended. No handshake fails.
 */
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { verifyJournal } from '../../src/audit/verify.ts'
import type { GroupState } from '../../src/hsm/port.ts'
import { findFreePort } from '../support/nginx.ts'
import type { OffloadRecord } from '../support/offload.ts'
import { openServedSite, type ServedSite, startCrowd } from '../support/served-site.ts'
import { startApache, startHaproxy, startNginxSite } from '../support/web-servers.ts'

const patience = { timeout: 120_000 }
const nobody = { nginx: [], apache: [], haproxy: [], 'haproxy, asynchronous': [] }
const resources = new AsyncDisposableStack()
let handshakes = 0
let served: ServedSite
const ports = {} as Record<keyof typeof nobody, number>

beforeAll(async () => {
  served = resources.use(await openServedSite())
  const { site, sites } = served
  for (const name of Object.keys(nobody) as (keyof typeof nobody)[]) ports[name] = await findFreePort()
  const options = (name: keyof typeof nobody) => ({ port: ports[name], pairs: [site], env: sites.env })
  resources.use(await startNginxSite(options('nginx'), 2))
  resources.use(await startApache('event', options('apache')))
  resources.use(await startHaproxy(options('haproxy')))
  resources.use(await startHaproxy({ ...options('haproxy, asynchronous'), isAsync: true }))
}, 600_000)
afterAll(() => resources.disposeAsync())

/** Handshakes at each server before and after, and what failed meanwhile. */
async function during(event: () => Promise<void>) {
  const crowd = startCrowd(ports, served.site, 1)
  try {
    await crowd.more(5)
    await event()
    await crowd.more(5)
  } finally {
    expect(await crowd.stop()).toEqual(nobody)
    for (const served of Object.values(crowd.served())) handshakes += served
  }
}

it('fails no handshake when the gateway hands over to a new process', patience, async () => {
  await during(() => served.handOver())
})

it('fails no handshake when the gateway is stopped and started', patience, async () => {
  await during(async () => {
    await served.stop()
    await served.start()
  })
})

it('fails no handshake when the gateway is killed and started', patience, async () => {
  await during(async () => {
    served.gateway.kill('SIGKILL')
    await served.gateway.ended
    await served.start()
  })
})

it('fails no handshake when workers of the module are killed, one after the other', patience, async () => {
  const { gateway } = served
  const workers = async () => {
    const { groups } = await gateway.ask<{ groups: readonly GroupState[] }>('token', 'list')
    return groups.flatMap((group) => group.workers).filter(({ state }) => state === 'ready')
  }
  await during(async () => {
    const before = await workers()
    expect(before.length).toBeGreaterThan(1)
    for (const { pid } of before) {
      process.kill(pid!, 'SIGKILL')
      // Two deaths under one call would condemn the call.
      const all = { timeout: 30_000, interval: 20 }
      await expect
        .poll(async () => (await workers()).filter((each) => each.pid !== pid).length, all)
        .toBe(before.length)
    }
  })
})

it('fails no handshake when the token is lost with all its sessions and comes back', patience, async () => {
  const { token } = served
  await during(async () => {
    token.rules(['C_SignInit to=1 drop=all', 'C_SignInit,C_Sign,C_OpenSession,C_GenerateRandom rv=CKR_DEVICE_REMOVED'])
    await expect.poll(() => token.hits(1), { timeout: 30_000 }).toBeGreaterThan(2)
    token.clear()
  })
  expect(token.events().some(({ action }) => action?.startsWith('drop'))).toBe(true)
})

it('fails no handshake when the token logs out the user of every session', patience, async () => {
  const { token } = served
  await during(async () => {
    token.rules(['C_SignInit to=1 scope=all logout'])
    await expect.poll(() => token.hits(0), { timeout: 30_000 }).toBeGreaterThan(0)
  })
  token.clear()
  expect(token.events().some(({ action }) => action === 'logout')).toBe(true)
})

it('leaves one whole journal, in which every handshake of the tests before was signed', patience, async () => {
  await served.stop()
  const folder = path.join(served.gateway.directory, 'audit')
  expect((await verifyJournal(folder)).problems).toEqual([])
  const files = readdirSync(folder).filter((name) => name.endsWith('.jsonl'))
  const records = files.flatMap((name) => readFileSync(path.join(folder, name), 'utf8').trim().split('\n'))
  const signed = records
    .map((line) => (JSON.parse(line) as { event: OffloadRecord }).event)
    .filter(({ eventSource, errorCode }) => eventSource === 'hsmgate.offload' && errorCode === undefined)
  // A signature whose answer was lost with its connection was asked for once more, under the same id.
  const traceIds = new Set(signed.map(({ additionalEventData }) => additionalEventData.traceId))
  expect(traceIds.size).toBe(handshakes)
  expect(handshakes).toBeGreaterThan(100)
})
