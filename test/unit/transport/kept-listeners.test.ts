/** Inherited sockets against the configuration; those that are closed are seen in test/integration/attacks-listeners.test.ts. */
import { createServer, type Server } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { parseConfig } from '../../../src/config/load.ts'
import { descriptorOf } from '../../../src/transport/descriptor.ts'
import { keepListeners } from '../../../src/transport/kept-listeners.ts'

const servers: Server[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
})

async function bind(host: string): Promise<number> {
  const server = createServer()
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return descriptorOf(server)
}

function configure(options: Readonly<Record<string, unknown>> = {}) {
  return parseConfig(
    JSON.stringify({
      development: true,
      tokens: { main: { module: '/nowhere.so', label: 'main', pinFile: 'pin', profile: 'softhsm' } },
      listen: { kms: { address: '127.0.0.1', port: 8600 } },
      ...options,
    }),
    '/nowhere/config.json',
  )
}

it('refuses a socket that would take plain HTTP beyond loopback', async () => {
  const inherited = new Map([['kms', await bind('0.0.0.0')]])
  expect(() => keepListeners(inherited, configure(), false)).toThrow('plain HTTP on 0.0.0.0')
  expect(keepListeners(inherited, configure({ insecure: true }), false)).toEqual(inherited)
})

it('leaves the places of sockets to whoever made them for systemd', async () => {
  const inherited = new Map([['kms', await bind('127.0.0.2')]])
  expect(keepListeners(inherited, configure(), false)).toEqual(inherited)
})

it('keeps a socket that was handed over and is where the configuration wants it', async () => {
  const inherited = new Map([['kms', await bind('::1')]])
  const config = configure({ listen: { kms: { address: '::1', port: 0 } } })
  expect(keepListeners(inherited, config, true)).toEqual(inherited)
})
