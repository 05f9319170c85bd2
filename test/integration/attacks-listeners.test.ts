/** What an operator shut or moved is not left open by a hand-over. */
import { connect, createServer } from 'node:net'
import { expect, it } from 'vitest'
import { isAlive, serveGateway, writeServeConfig } from '../support/served-gateway.ts'
import { createTestToken } from '../support/softhsm.ts'

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

it('opens doors where the configuration of the new process has them, and nowhere else', {
  timeout: 120_000,
}, async () => {
  await using token = await createTestToken()
  const port = await findFreePort()
  const listen = (address: string, http: object | null) => ({ listen: { kms: { address, port }, operator: { http } } })
  const before = listen('127.0.0.1', { address: '127.0.0.1', port: 0 })
  await using served = await serveGateway(token, { config: before })
  const statusPort = Number(new URL(served.operatorEndpoint).port)
  expect(await tryToConnect('127.0.0.1', statusPort)).toBe('connected')

  await writeServeConfig(token, listen('127.0.0.2', null))
  served.kill('SIGUSR2')
  const [, successor] = await served.output(/process (\d+) takes over/)
  try {
    await expect.poll(() => isAlive(served.pid), { timeout: 30_000 }).toBe(false)
    await expect.poll(() => tryToConnect('127.0.0.2', port), { timeout: 30_000 }).toBe('connected')
    expect(await tryToConnect('127.0.0.1', port)).toBe('ECONNREFUSED')
    expect(await tryToConnect('127.0.0.1', statusPort)).toBe('ECONNREFUSED')
  } finally {
    process.kill(Number(successor), 'SIGKILL')
  }
})
