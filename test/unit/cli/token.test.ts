import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadAddon } from '../../../src/hsm/worker/addon.ts'
import { runHsmgate } from '../../support/terminal.ts'

let directory: string
let latch: string
let config: string

beforeEach(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-retry-'))
  latch = path.join(directory, 'pin-refused.json')
  config = path.join(directory, 'config.json')
  const pinFile = path.join(directory, 'pin')
  const module = path.join(directory, 'module.so')
  await Promise.all([writeFile(pinFile, '1234', { mode: 0o600 }), writeFile(module, '')])
  await writeFile(config, JSON.stringify({ development: true, tokens: { main: { module, label: 'main', pinFile } } }))
  const refusal = (token: string) => ({
    token,
    user: '',
    pins: [{ inode: '1', changeTimeNs: '1', bytes: 4 }],
    rv: 160,
    at: '',
  })
  await writeFile(latch, JSON.stringify({ version: 1, refusals: [refusal('label:main'), refusal('label:other')] }))
})

afterEach(async () => {
  await rm(directory, { recursive: true, force: true })
})

const refused = async (): Promise<string[]> =>
  (JSON.parse(await readFile(latch, 'utf8')) as { refusals: { token: string }[] }).refusals.map(({ token }) => token)

describe('hsmgate token retry-login without a gateway', () => {
  it('forgets the refusal of that token alone', async () => {
    const { code, out } = await runHsmgate(['token', 'retry-login', 'main', '--config', config])
    expect({ code, out }).toMatchObject({ code: 0, out: expect.stringContaining('tries its PIN once') })
    expect(await refused()).toEqual(['label:other'])
  })

  it('changes nothing for a token that is not configured, or while a gateway holds the state', async () => {
    const unknown = await runHsmgate(['token', 'retry-login', 'nobody', '--config', config])
    expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('use one of: main') })
    expect(loadAddon().lockFile(path.join(directory, 'gateway.lock'))).toBeGreaterThanOrEqual(0)
    const busy = await runHsmgate(['token', 'retry-login', 'main', '--config', config])
    expect(busy).toMatchObject({ code: 1, err: expect.stringContaining('a gateway is starting') })
    expect(await refused()).toEqual(['label:main', 'label:other'])
  })
})
