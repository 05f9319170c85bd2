/** The signing socket as the operating system sees it: inherited sockets, restarts that refuse nobody, ten thousand idle connections. */
import { randomBytes, verify } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import path from 'node:path'
import { expect, it } from 'vitest'
import { askSocket, type Question } from '../../src/cli/operator-client.ts'
import { encodeHello } from '../../src/transport/offload/frame-encoding.ts'
import { certificateVerify, connectHks } from '../support/hks-client.ts'
import { startHsmgate } from '../support/hsmgate-process.ts'
import { type BoundKey, bindKey } from '../support/offload.ts'
import { isAlive, serveGateway, writeServeConfig } from '../support/served-gateway.ts'
import { createTestToken } from '../support/softhsm.ts'

const patience = { timeout: 120_000 }
const message = certificateVerify('server', randomBytes(32))
const activation = path.resolve(import.meta.dirname, '../support/socket-activation.py')

/** A key and its token on whatever answers at an operator socket. */
async function makeKey(operator: string, policies = 'tls13-server') {
  const ask = <T>(noun: string, verb: string, question: Question = {}): Promise<T> =>
    askSocket<T>(operator, noun, verb, question)
  return bindKey({ ask }, await ask('tls', 'create-key', { spec: 'ECC_NIST_P256' }), { policies })
}

/** Three clients that retry what GOAWAY or the end of a connection cut off, as the provider does, and nothing else. */
function startClients(file: string, key: BoundKey) {
  const failures: unknown[] = []
  let signed = 0
  let stopping = false
  const work = async (): Promise<void> => {
    while (!stopping) {
      try {
        await using client = await connectHks(file, { tokens: [key.token] })
        for (let i = 0; i < 50 && !stopping; i++) {
          const answer = await client.sign({ keyId: key.spkiDigest, input: message })
          if (answer.ok && verify('sha256', message, key.publicKey, answer.signature)) signed++
          else if (!answer.ok && answer.retryable) break
          else failures.push(answer)
        }
      } catch (cause) {
        if ((cause as Error).message !== 'the connection is over') failures.push(cause)
      }
    }
  }
  const all = [1, 2, 3].map(work)
  return {
    failures,
    get signed() {
      return signed
    },
    async stop() {
      stopping = true
      await Promise.all(all)
    },
  }
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(/\s+/).filter(Boolean).map(Number)
const socketsOf = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)]
    } catch {
      return []
    }
  })

it(
  'serves on a socket that it inherited, keeps it from its workers, and loses nobody when it is restarted',
  patience,
  async () => {
    await using token = await createTestToken()
    const config = await writeServeConfig(token)
    const file = path.join(token.directory, 'activated.sock')
    await using running = startHsmgate(['serve', '--config', config, '--json'], {}, [
      '/usr/bin/python3',
      activation,
      file,
      'offload',
    ])
    const [ready] = await running.output(/\{\s*"ready": true[\s\S]*?\n\}/)
    expect(JSON.parse(ready)).toMatchObject({ endpoints: { offload: [file] } })
    const run = path.join(path.dirname(config), 'run')
    expect(existsSync(path.join(run, 'sign.sock'))).toBe(false)
    const key = await makeKey(path.join(run, 'operator.sock'))
    const request = { keyId: key.spkiDigest, input: message }

    // The listening socket is the gateway's; its workers, which hold keys, have no part in it.
    const gatewayPid = Number((await running.output(/activated (\d+)/))[1])
    const inode = readFileSync('/proc/net/unix', 'utf8')
      .split('\n')
      .find((line) => line.endsWith(` ${file}`))
      ?.split(/\s+/)[6]
    expect(socketsOf(gatewayPid)).toContain(`socket:[${inode}]`)
    const workers = childrenOf(gatewayPid)
    expect(workers.length).toBeGreaterThan(0)
    for (const pid of workers) expect(socketsOf(pid)).not.toContain(`socket:[${inode}]`)

    const clients = startClients(file, key)
    try {
      await expect.poll(() => clients.signed, { timeout: 30_000 }).toBeGreaterThan(20)
      process.kill(gatewayPid, 'SIGTERM')
      await expect.poll(() => isAlive(gatewayPid), { timeout: 30_000 }).toBe(false)
      // Nobody serves now: who connects waits in the kernel.
      const waiting = connectHks(file, { tokens: [key.token] })
      await running.output(/activated \d+[\s\S]*activated (\d+)/)
      await using patient = await waiting
      expect(await patient.sign(request)).toMatchObject({ ok: true })
      const before = clients.signed
      await expect.poll(() => clients.signed, { timeout: 30_000 }).toBeGreaterThan(before + 20)
    } finally {
      await clients.stop()
    }
    expect(clients.failures).toEqual([])
    running.kill('SIGTERM')
    expect((await running.ended).code).toBe(0)
  },
)

// A machine without systemd has the same from bash and Python, above.
const activator = '/usr/bin/systemd-socket-activate'
it.skipIf(!existsSync(activator))(
  'serves when systemd hands it the socket at the first connection',
  patience,
  async () => {
    await using token = await createTestToken()
    const config = await writeServeConfig(token)
    const file = path.join(token.directory, 'first.sock')
    const through = [activator, '--fdname=offload', '-l', file, '-E', 'PATH', '-E', 'HOME']
    await using running = startHsmgate(['serve', '--config', config, '--json'], {}, through)
    await running.output(/Listening on/)
    // The program starts because of this connection, and answers it.
    await using client = await connectHks(file)
    await client.ping()
  },
)

it('refuses to start with an inherited socket of a door that there is not', patience, async () => {
  await using token = await createTestToken()
  const config = await writeServeConfig(token)
  const file = path.join(token.directory, 'strange.sock')
  const through = ['/bin/bash', '-c', 'export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=ftp; exec "$@"', 'bash']
  await using running = startHsmgate(['serve', '--config', config], {}, through)
  const { code, err } = await running.ended
  expect(code).toBe(1)
  expect(err).toContain("'ftp' is no listener of hsmgate")
  expect(existsSync(file)).toBe(false)
})

it('carries ten thousand idle connections and signs beside them', patience, async () => {
  await using token = await createTestToken()
  await using served = await serveGateway(token)
  const file = path.join(served.directory, 'run', 'sign.sock')
  const key = await makeKey(path.join(served.directory, 'run', 'operator.sock'))
  const memory = () => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${served.pid}/status`, 'utf8'))?.[1]) / 1024
  const hello = encodeHello({
    minVersion: 1,
    maxVersion: 1,
    app: 'idle',
    pid: 1,
    providerVersion: '0',
    tokens: [key.token],
  })
  const before = memory()

  const idle: Socket[] = []
  let ended = 0
  const open = () =>
    new Promise<void>((resolve, reject) => {
      const socket = connect(file, () => socket.write(hello))
      socket.once('data', () => resolve()).once('error', reject)
      socket.once('close', () => ended++)
      idle.push(socket)
    })
  try {
    for (let batch = 0; batch < 50; batch++) await Promise.all(Array.from({ length: 200 }, open))
    expect(idle).toHaveLength(10_000)
    await using client = await connectHks(file, { tokens: [key.token] })
    for (let i = 0; i < 20; i++) {
      const answer = await client.sign({ keyId: key.spkiDigest, input: message })
      expect(answer.ok && verify('sha256', message, key.publicKey, answer.signature)).toBe(true)
    }
    expect(ended).toBe(0)
    expect(memory() - before).toBeLessThan(400)
  } finally {
    for (const socket of idle) socket.destroy()
  }
})

it(
  'gives its socket the mode and group of the configuration, lets its users reach it, and removes it at its end',
  patience,
  async () => {
    await using token = await createTestToken()
    const chroot = path.join(token.directory, 'chroot.sock')
    // Only root may give a file to any group.
    const gid = process.getuid?.() === 0 ? 65_534 : process.getgid?.()
    const config = {
      listen: {
        kms: null,
        operator: { http: null },
        offload: { mode: '0666', group: String(gid), moreSockets: [chroot] },
      },
    }
    const file = await writeServeConfig(token, config)
    await using running = startHsmgate(['serve', '--config', file, '--json'])
    await running.output(/"ready": true/)
    const run = path.join(path.dirname(file), 'run')
    const socket = path.join(run, 'sign.sock')
    for (const each of [socket, chroot]) {
      expect(statSync(each)).toMatchObject({ gid })
      expect(statSync(each).mode & 0o777).toBe(0o666)
      await using client = await connectHks(each)
      await client.ping()
    }
    expect(statSync(run).mode & 0o777).toBe(0o711)
    expect(statSync(path.join(run, 'operator.sock')).mode & 0o777).toBe(0o600)
    running.kill('SIGTERM')
    expect((await running.ended).code).toBe(0)
    expect([existsSync(socket), existsSync(chroot)]).toEqual([false, false])
  },
)

it('loses nobody when SIGUSR2 hands over to a new process', patience, async () => {
  await using token = await createTestToken()
  await using served = await serveGateway(token)
  const run = path.join(served.directory, 'run')
  const key = await makeKey(path.join(run, 'operator.sock'))
  const clients = startClients(path.join(run, 'sign.sock'), key)
  let successor: number | undefined
  try {
    await expect.poll(() => clients.signed, { timeout: 30_000 }).toBeGreaterThan(20)
    served.kill('SIGUSR2')
    successor = Number((await served.output(/process (\d+) takes over/))[1])
    await expect.poll(() => isAlive(served.pid), { timeout: 30_000 }).toBe(false)
    const before = clients.signed
    await expect.poll(() => clients.signed, { timeout: 30_000 }).toBeGreaterThan(before + 20)
  } finally {
    await clients.stop()
    if (successor !== undefined && isAlive(successor)) process.kill(successor, 'SIGTERM')
  }
  expect(clients.failures).toEqual([])
  await served.ended
})
