/**
 * The provider's sanitizer builds inside programs of Debian: what AddressSanitizer finds in s_server and in HAProxy whose handshakes pause and are
 * given up, what ThreadSanitizer finds in Apache's event MPM. The runtime is preloaded, since the programs are not built for it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { connect } from 'node:tls'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import { type HksEndpoint, type HksKey, startHksEndpoint } from '../support/hks-endpoint.ts'
import { findFreePort } from '../support/nginx.ts'
import { buildProvider, sanitize } from '../support/provider.ts'
import { startVisits, visit } from '../support/tls-sites.ts'
import { startApache, startHaproxy } from '../support/web-servers.ts'
import { amount, patience } from './bounds.ts'

const template = readFileSync(path.join(import.meta.dirname, '../../deploy/openssl/openssl.cnf'), 'utf8').replace(
  'hsmgate-deadline-ms = 1000',
  'hsmgate-deadline-ms = 20000',
)
let endpoint: HksEndpoint
const pairs = {} as Record<'rsa' | 'P-256' | 'ed25519', HksKey & { readonly certificate: string }>

beforeAll(async () => {
  buildProvider()
  endpoint = await startHksEndpoint()
  // Servers become www-data.
  chmodSync(endpoint.folder, 0o755)
  chmodSync(endpoint.socketPath, 0o666)
  for (const kind of ['rsa', 'P-256', 'ed25519'] as const) {
    const key = endpoint.addKey(kind)
    const certificate = path.join(endpoint.folder, `${key.name}.crt.pem`)
    const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
    await runOk('openssl', ['req', '-new', '-x509', '-key', key.private, ...names, '-out', certificate])
    pairs[kind] = { ...key, certificate }
  }
}, 600_000)
afterAll(() => endpoint?.[Symbol.asyncDispose]())
beforeEach(() => {
  endpoint.requests.length = 0
  endpoint.onRequest = () => 'sign'
})

const sanitized = (kind: 'asan' | 'tsan') => sanitize(kind, endpoint.folder, template, endpoint.socketPath)
const randomMs = (most: number) => Math.random() * most

it.each(['rsa', 'P-256', 'ed25519'] as const)('s_server with a %s key leaks nothing', patience, async (kind) => {
  const { env, reports } = sanitized('asan')
  const { certificate, reference } = pairs[kind]
  const handshakes = amount(20, 1000)
  const args = ['-accept', '127.0.0.1:0', '-naccept', `${handshakes}`, '-cert', certificate, '-key', reference, '-www']
  const server = spawn('openssl', ['s_server', ...args], {
    env: { PATH: process.env.PATH, ...env, ASAN_OPTIONS: `${env.ASAN_OPTIONS}:detect_leaks=1` },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exit = once(server, 'exit')
  let said = ''
  server.stdout.on('data', (chunk) => {
    said += chunk
  })
  await expect.poll(() => said, { timeout: 60_000 }).toMatch(/ACCEPT 127\.0\.0\.1:\d+/)
  const port = Number(/ACCEPT 127\.0\.0\.1:(\d+)/.exec(said)?.[1])
  for (let i = 0; i < handshakes; i++) {
    const version = i % 2 === 0 ? 'TLSv1.3' : 'TLSv1.2'
    expect(await visit(port, [pairs[kind]], { maxVersion: version })).toMatchObject({ status: 200, protocol: version })
  }
  const ended = await exit
  expect(reports()).toBe('')
  expect(ended).toEqual([0, null])
  expect(endpoint.requests).toHaveLength(handshakes)
})

it('HAProxy in asynchronous mode survives clients that leave at any moment', patience, async () => {
  const { env, reports } = sanitized('asan')
  const port = await findFreePort()
  // On a busy machine a visit may take long; one that is never resumed takes forever.
  const more = 'timeout client 60s'
  await using haproxy = await startHaproxy({ port, pairs: [pairs['P-256']], env, isAsync: true, more })
  endpoint.onRequest = () => ({ afterMs: randomMs(20) })
  const handshakes = amount(300, 10_000)
  const visitors = startVisits(4, async () => {
    expect(await visit(port, [pairs['P-256']])).toMatchObject({ status: 200, isReused: false })
  })
  const leavers = startVisits(8, async () => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false }).on('error', () => {})
    await new Promise((resolve) => setTimeout(resolve, randomMs(25)))
    socket.destroy()
  })
  try {
    while (endpoint.requests.length < handshakes && visitors.failures.length === 0) await visitors.more(10)
  } finally {
    await Promise.all([visitors.stop(), leavers.stop()])
  }
  // Whoever left holds nothing any more.
  expect(await visit(port, [pairs['P-256']])).toMatchObject({ status: 200 })
  expect(reports()).toBe('')
  // Nothing was asked twice: each answer woke whom it was for.
  expect(new Set(endpoint.requests.map(({ traceId }) => traceId?.toString('hex'))).size).toBe(endpoint.requests.length)
  expect(haproxy.errorLog()).not.toContain('exited with code')
  expect(visitors.failures).toEqual([])
  expect(visitors.served()).toBeGreaterThan(handshakes / 20)
  expect(endpoint.requests.length - visitors.served()).toBeGreaterThan(handshakes / 20)
})

it('Apache with threads races nowhere', patience, async () => {
  const { env, reports } = sanitized('tsan')
  const port = await findFreePort()
  await using apache = await startApache('event', { port, pairs: [pairs['P-256'], pairs.rsa], env })
  endpoint.onRequest = () => ({ afterMs: randomMs(5) })
  const handshakes = amount(100, 3000)
  const visitors = startVisits(12, async () => {
    expect(await visit(port, [pairs['P-256']], { sigalgs: 'ecdsa_secp256r1_sha256' })).toMatchObject({ status: 200 })
  })
  try {
    await visitors.more(handshakes / 2)
    await apache.reload()
    await visitors.more(handshakes / 2)
  } finally {
    await visitors.stop()
  }
  expect(visitors.failures).toEqual([])
  expect(reports()).toBe('')
})
