/** What an operator shut, moved or closed to others is not left open by a hand-over. */
import { statSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import path from 'node:path'
import { expect, it } from 'vitest'
import { isAlive, serveGateway, writeServeConfig } from '../support/served-gateway.ts'
import { createTestToken } from '../support/softhsm.ts'

const patience = { timeout: 120_000 }

async function findFreePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

function tryToConnect(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, host, () => {
      socket.destroy()
      resolve('connected')
    })
    socket.once('error', ({ code }: NodeJS.ErrnoException) => resolve(String(code)))
  })
}

function modeOf(file: string): string {
  const mode = statSync(file, { throwIfNoEntry: false })?.mode
  return mode === undefined ? 'none' : (mode & 0o777).toString(8)
}

it(
  'opens doors where and to whom the configuration of the new process has them, and nowhere else',
  patience,
  async () => {
    await using token = await createTestToken()
    const port = await findFreePort()
    const [socket, second] = ['sign.sock', 'second.sock'].map((name) => path.join(token.directory, name)) as [
      string,
      string,
    ]
    const loopback = { address: '127.0.0.1', port: 0 }
    await using served = await serveGateway(token, {
      config: {
        listen: {
          kms: { address: '127.0.0.1', port },
          offload: { socket, mode: '0666', moreSockets: [second] },
          operator: { http: loopback },
        },
      },
    })
    const statusPort = Number(new URL(served.operatorEndpoint).port)
    expect(await tryToConnect('127.0.0.1', statusPort)).toBe('connected')
    expect([socket, second].map(modeOf)).toEqual(['666', '666'])

    await writeServeConfig(token, {
      listen: { kms: { address: '127.0.0.2', port }, offload: { socket, mode: '0600' }, operator: { http: null } },
    })
    served.kill('SIGUSR2')
    const [, successor] = await served.output(/process (\d+) takes over/)
    try {
      await expect.poll(() => isAlive(served.pid), { timeout: 30_000 }).toBe(false)
      await expect.poll(() => tryToConnect('127.0.0.2', port), { timeout: 30_000 }).toBe('connected')
      expect(await tryToConnect('127.0.0.1', port)).toBe('ECONNREFUSED')
      expect(await tryToConnect('127.0.0.1', statusPort)).toBe('ECONNREFUSED')
      await expect.poll(() => [socket, second].map(modeOf), { timeout: 30_000 }).toEqual(['600', 'none'])
    } finally {
      process.kill(Number(successor), 'SIGKILL')
    }
  },
)
