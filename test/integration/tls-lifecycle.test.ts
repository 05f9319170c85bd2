/**
 * Reloads, upgrades and deaths of web servers while clients shake hands with them, and a gateway that stops answering: what keeps its key in
 * the module loses nobody, what has its key in a file notices nothing.
 */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { connect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findFreePort, type NginxOptions, startNginx, startNginxDaemon } from '../support/nginx.ts'
import { isAlive } from '../support/served-gateway.ts'
import { openServedSite, type ServedSite, startCrowd } from '../support/served-site.ts'
import { startSyslog } from '../support/syslog.ts'
import { makeKeyFileSite, startVisitors, visit } from '../support/tls-sites.ts'
import { nginxSite, type SiteOptions, startApache, startHaproxy, startNginxSite } from '../support/web-servers.ts'

const patience = { timeout: 180_000 }
type SitePair = SiteOptions['pairs'][number]
const poll = { timeout: 60_000, interval: 20 }
let served: ServedSite
beforeAll(async () => {
  served = await openServedSite()
}, 600_000)
afterAll(() => served?.[Symbol.asyncDispose]())

describe('servers that reload under load', () => {
  it('fail no handshake: each server a hundred times', patience, async () => {
    const { site, sites } = served
    const names = ['nginx', 'event', 'prefork', 'haproxy', 'asynchronous'] as const
    const ports = {} as Record<(typeof names)[number], number>
    for (const name of names) ports[name] = await findFreePort()
    const options = (name: (typeof names)[number]) => ({ port: ports[name], pairs: [site], env: sites.env })
    await using nginx = await startNginxSite(options('nginx'), 2)
    await using event = await startApache('event', options('event'))
    await using prefork = await startApache('prefork', options('prefork'))
    await using haproxy = await startHaproxy(options('haproxy'))
    await using asynchronous = await startHaproxy({ ...options('asynchronous'), isAsync: true })
    const servers = { nginx, event, prefork, haproxy, asynchronous }
    const crowd = startCrowd(ports, site, 1)
    const reload = async (name: (typeof names)[number], times: number) => {
      for (let time = 0; time < times; time++) {
        await servers[name].reload()
        // the one under way, and one that began after the reload
        await crowd.more(2, name)
      }
    }
    try {
      await crowd.more(2)
      const apache = [reload('event', 100), reload('prefork', 100)]
      await Promise.all([reload('nginx', 100), ...apache, reload('haproxy', 100), reload('asynchronous', 100)])
      await crowd.more(5)
    } finally {
      expect(await crowd.stop()).toEqual(Object.fromEntries(names.map((name) => [name, []])))
    }
    // Processes ended because they were told to.
    expect(nginx.errorLog()).not.toMatch(/exited on signal/)
    for (const { errorLog } of [event, prefork]) expect(errorLog()).not.toMatch(/exit signal/)
    for (const { errorLog } of [haproxy, asynchronous]) expect(errorLog()).not.toMatch(/exited with code (?!0 )/)
  })
})

describe('NGINX', () => {
  const site = async (main: string): Promise<[number, NginxOptions]> => {
    const port = await findFreePort()
    return [port, { env: served.sites.env, main, http: nginxSite({ port, pairs: [served.site] }) }]
  }

  it('is replaced by a new binary without a failed handshake when it keeps OPENSSL_CONF', patience, async () => {
    const [port, options] = await site('env OPENSSL_CONF;')
    await using nginx = await startNginxDaemon(port, options)
    const before = nginx.masterPid()
    const crowd = startCrowd({ nginx: port }, served.site, 3)
    try {
      await crowd.more(5)
      process.kill(before, 'SIGUSR2')
      await expect.poll(() => existsSync(path.join(nginx.folder, 'nginx.pid.oldbin')), poll).toBe(true)
      await expect.poll(() => nginx.errorLog().match(/start worker process \d+/g)?.length, poll).toBe(2)
      process.kill(before, 'SIGQUIT')
      await expect.poll(() => isAlive(before), poll).toBe(false)
      await crowd.more(5)
    } finally {
      expect(await crowd.stop()).toEqual({ nginx: [] })
    }
    expect(nginx.masterPid()).not.toBe(before)
  })

  it('stays what it was when the new binary is left without OPENSSL_CONF', patience, async () => {
    const [port, options] = await site('')
    await using nginx = await startNginxDaemon(port, options)
    const before = nginx.masterPid()
    process.kill(before, 'SIGUSR2')
    await expect.poll(() => nginx.errorLog(), poll).toMatch(/No supported data to decode[\s\S]*exited with code 1/)
    expect(nginx.masterPid()).toBe(before)
    expect(await visit(port, [served.site])).toMatchObject({ status: 200 })
  })

  it('serves on with a new worker when one is killed', patience, async () => {
    const [port, options] = await site('')
    await using nginx = await startNginx(port, options)
    const workers = () => nginx.errorLog().match(/(?<=start worker process )\d+/g) ?? []
    await visit(port, [served.site])
    process.kill(Number(workers()[0]), 'SIGKILL')
    await expect.poll(() => workers().length, poll).toBe(2)
    expect(await visit(port, [served.site])).toMatchObject({ status: 200, isReused: false })
  })
})

describe('HAProxy in asynchronous mode', () => {
  it('outlives clients that leave while their handshakes wait for the module', patience, async () => {
    const { site, sites, token } = served
    const port = await findFreePort()
    await using haproxy = await startHaproxy({ port, pairs: [site], env: sites.env, isAsync: true })
    token.rules(['C_Sign delay=uniform:0:20'])
    const visitors = startVisitors(port, site, 3)
    try {
      const leave = async (afterMs: number) => {
        const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false }).on('error', () => {})
        await new Promise((resolve) => setTimeout(resolve, afterMs))
        socket.destroy()
      }
      for (let round = 0; round < 40; round++)
        await Promise.all(Array.from({ length: 8 }, (_, index) => leave(3 * index)))
      await visitors.more(50)
    } finally {
      token.clear()
      await visitors.stop()
    }
    expect(visitors.failures).toEqual([])
    expect(haproxy.errorLog()).not.toContain('exited with code')
  })
})

/** One thread and two sites: `pair` at `filePort`, whose key is in a file, and `site`. */
const frozenUnder: Readonly<
  Record<string, (site: SiteOptions, pair: SitePair, filePort: number) => Promise<AsyncDisposable>>
> = {
  NGINX: (site, pair, filePort) => {
    const neighbour = `server { listen 127.0.0.1:${filePort} ssl; ssl_certificate ${pair.certificate};
      ssl_certificate_key ${pair.reference}; location / { return 200; } }`
    return startNginxSite({ ...site, more: neighbour })
  },
  'Apache event': (site, pair, filePort) => {
    const main = `ServerLimit 1\nThreadsPerChild 1\nMaxRequestWorkers 1\nMinSpareThreads 1\nMaxSpareThreads 1
      Listen 127.0.0.1:${filePort}
      <VirtualHost 127.0.0.1:${filePort}>
        SSLEngine on
        SSLCertificateFile ${pair.certificate}
        SSLCertificateKeyFile ${pair.reference}
        Redirect 200 /
      </VirtualHost>`
    return startApache('event', { ...site, main })
  },
  HAProxy: (site, pair, filePort) => {
    const pem = path.join(served.sites.folder, 'neighbour.pem')
    writeFileSync(pem, readFileSync(pair.reference, 'utf8') + readFileSync(pair.certificate, 'utf8'), { mode: 0o600 })
    const neighbour = `
frontend neighbour
  bind 127.0.0.1:${filePort} ssl crt ${pem}
  http-request return status 200
global
  nbthread 1`
    return startHaproxy({ ...site, more: neighbour })
  },
}

describe('a gateway that is frozen', () => {
  it.each(Object.entries(frozenUnder))(
    'leaves sites of %s with keys in files alone once the breaker is open',
    patience,
    async (name, start) => {
      const { site, sites, gateway } = served
      const deadlineMs = 600
      const inFile = await makeKeyFileSite(path.join(sites.folder, 'own'))
      const [port, filePort] = [await findFreePort(), await findFreePort()]
      const HSMGATE_LOG = path.join(sites.folder, `${name}.log`)
      await using syslog = await startSyslog(HSMGATE_LOG)
      chmodSync(HSMGATE_LOG, 0o666)
      const env = { ...sites.env, HSMGATE_DEADLINE_MS: String(deadlineMs), HSMGATE_LOG }
      await using _server = await start({ port, pairs: [site], env }, inFile, filePort)

      const medianMs = async () => {
        const times: number[] = []
        for (let time = 0; time < 15; time++) {
          const begunMs = performance.now()
          expect((await visit(filePort, [inFile])).status).toBe(200)
          times.push(performance.now() - begunMs)
        }
        return times.sort((a, b) => a - b)[7]!
      }
      const visitors = startVisitors(port, site, 1)
      try {
        await visitors.more(3)
        const beforeMs = await medianMs()
        expect(visitors.failures).toEqual([])
        gateway.kill('SIGSTOP')
        await expect.poll(() => syslog.lines.join('\n'), poll).toContain('all endpoints down')
        // Each handshake that waited for the gateway would hold up the one thread for as long as the deadline.
        expect((await medianMs()) - beforeMs).toBeLessThan(deadlineMs / 2)
        gateway.kill('SIGCONT')
        const before = visitors.served()
        await expect.poll(() => visitors.served(), poll).toBeGreaterThan(before + 3)
      } finally {
        gateway.kill('SIGCONT')
        await visitors.stop()
      }
      expect(visitors.failures.length).toBeGreaterThan(0)
    },
  )
})
