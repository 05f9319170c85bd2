/** A relay in front of a gateway that hands over to a new process while web servers work: the relay moves along, and nobody notices. */
import { randomBytes, verify } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { expect, it } from 'vitest'
import { verifyJournal } from '../../src/audit/verify.ts'
import { completeDevelopmentTls } from '../../src/cli/development-ca.ts'
import { makeRelayKey, makeRelayRequest } from '../../src/relay/enrolment.ts'
import { certificateVerify, connectHks } from '../support/hks-client.ts'
import { bindKey } from '../support/offload.ts'
import { startRelay } from '../support/relay.ts'
import { isAlive, serveGateway } from '../support/served-gateway.ts'
import { createTestToken } from '../support/softhsm.ts'

const message = certificateVerify('server', randomBytes(32))

it('loses no signature while the gateway hands over, twice', { timeout: 120_000 }, async () => {
  await using token = await createTestToken()
  const folder = path.join(token.directory, 'relay')
  mkdirSync(folder)
  await completeDevelopmentTls(folder)
  const file = (name: string) => path.join(folder, name)
  const listener = { port: 0, tls: { certificateFile: file('server.pem'), keyFile: file('server.key') } }
  const http = { address: '127.0.0.1', port: 0 }
  await using served = await serveGateway(token, {
    config: { listen: { kms: http, operator: { http }, relay: { address: '127.0.0.1', ...listener } } },
  })
  const [ready] = await served.output(/\{\s*"ready": true[\s\S]*?\n\}/)
  const { endpoints } = JSON.parse(ready) as { endpoints: { offload: readonly string[] } }
  const address = endpoints.offload.find((endpoint) => endpoint.startsWith('tls://'))?.slice('tls://'.length) ?? ''

  const keyPem = makeRelayKey()
  const { request, digest } = await makeRelayRequest(keyPem, 'relay.key', 'web-host')
  const approval = { name: 'web-host', request, days: 2 }
  const { certificate } = await served.ask<{ certificate: string }>('tls-relay', 'approve', approval)
  writeFileSync(file('relay.key'), keyPem, { mode: 0o600 })
  writeFileSync(file('relay.crt'), certificate)
  const key = await bindKey(served, await served.ask('tls', 'create-key', { spec: 'ECC_NIST_P256' }), {
    relays: [digest],
  })
  const files = { certificateFile: file('relay.crt'), keyFile: file('relay.key') }
  const pki = { folder, server: { cert: '', key: '', caFile: file('ca.pem') } }
  await using relay = await startRelay(pki, { gateways: [address], files, config: { maxBudgetMs: 10_000 } })

  const failures: unknown[] = []
  let signed = 0
  let stopping = false
  const work = async (): Promise<void> => {
    await using client = await connectHks(relay.socket, { tokens: [key.token] })
    while (!stopping) {
      const answer = await client.sign({ keyId: key.spkiDigest, input: message }, 10_000)
      if (answer.ok && verify('sha256', message, key.publicKey, answer.signature)) signed++
      else failures.push(answer)
    }
  }
  const all = [1, 2, 3, 4].map(() => work().catch((cause) => failures.push(cause)))
  const pids: number[] = [served.pid]
  using _successors = {
    [Symbol.dispose]() {
      for (const pid of pids.slice(1)) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    },
  }
  try {
    for (let i = 0; i < 2; i++) {
      process.kill(pids.at(-1) as number, 'SIGUSR2')
      const [, pid] = await served.output(
        new RegExp(`(?:process \\d+ takes over[\\s\\S]*){${i}}process (\\d+) takes over`),
      )
      pids.push(Number(pid))
      await expect.poll(() => isAlive(pids.at(-2) as number), { timeout: 30_000 }).toBe(false)
      const before = signed
      await expect.poll(() => signed, { timeout: 30_000 }).toBeGreaterThan(before + 100)
    }
  } finally {
    stopping = true
    await Promise.all(all)
  }
  expect(failures).toEqual([])
  expect(relay.noted.filter((line) => line.startsWith('lost'))).toEqual([])
  expect(relay.noted.filter((line) => line.startsWith('leaving'))).toHaveLength(4)

  process.kill(pids.at(-1) as number, 'SIGTERM')
  await expect.poll(() => isAlive(pids.at(-1) as number), { timeout: 30_000 }).toBe(false)
  expect((await verifyJournal(path.join(served.directory, 'audit'))).problems).toEqual([])
})
