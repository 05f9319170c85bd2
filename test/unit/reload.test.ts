import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parseConfig } from '../../src/config/load.ts'
import { type ReloadParts, reload, type TlsFiles } from '../../src/reload.ts'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-reload-'))
  for (const name of ['one.pem', 'two.pem', 'key.pem', 'ca.pem']) {
    await writeFile(path.join(directory, name), name, { mode: 0o600 })
  }
})
afterAll(() => rm(directory, { recursive: true, force: true }))

const token = { module: '/m.so', label: 'l', pinFile: 'pin' }
const config = (more: object = {}) =>
  parseConfig(JSON.stringify({ tokens: { main: token }, ...more }), path.join(directory, 'config.json'))
const withTls = (certificateFile: string, more: object = {}) =>
  config({ listen: { kms: { address: '127.0.0.1', port: 1, tls: { certificateFile, keyFile: 'key.pem', ...more } } } })

let certificates: TlsFiles[]
let calls: [string, unknown][]
let refuses: boolean

beforeEach(() => {
  certificates = []
  calls = []
  refuses = false
})

const listener = {
  setCertificates(tls: TlsFiles) {
    if (refuses) throw new Error('PEM is wrong')
    certificates.push(tls)
  },
}

const parts: ReloadParts = {
  quotas: { configure: (limits) => calls.push(['quotas', limits]) },
  setLogLevel: (level) => calls.push(['log', level]),
  setTrustedProxies: (entries) => calls.push(['proxies', entries]),
  listeners: { kms: listener, relay: listener, xks: listener },
  setTokens: (tokens) => calls.push(['tokens', tokens]),
  replaceWorkers: () => calls.push(['workers', undefined]),
}

describe('a reload', () => {
  it('of what did not change replaces the workers and asks for nothing', () => {
    const reloaded = reload(config(), config(), parts)
    expect(reloaded).toMatchObject({ needsRestart: [], problems: [] })
    expect(reloaded.config).toEqual(config())
    expect(calls.at(-1)).toEqual(['workers', undefined])
  })

  it('uses rates, log level, proxies, modules and PIN files at once', () => {
    const changed = {
      quotas: { enabled: false, requestsPerSecond: { 'create-key': 9 } },
      log: { level: 'debug' },
      trustedProxies: ['10.0.0.0/8'],
      tokens: { main: { ...token, module: '/n.so', pinFile: 'other', sessions: 3, env: { A: 'b' } } },
    }
    const reloaded = reload(config(), config(changed), parts)
    expect(reloaded.needsRestart).toEqual([])
    expect(reloaded.config).toEqual(config(changed))
    expect(Object.isFrozen(reloaded.config)).toBe(true)
    expect(calls).toEqual([
      ['quotas', expect.objectContaining({ enabled: false, requestsPerSecond: { 'create-key': 9 } })],
      ['log', 'debug'],
      ['proxies', ['10.0.0.0/8']],
      ['tokens', { main: expect.objectContaining({ module: '/n.so', sessions: 3, env: { A: 'b' } }) }],
      ['workers', undefined],
    ])
  })

  it('names what needs a new process, again at every reload until it is so', () => {
    const changed = config({
      regions: ['eu-west-1'],
      listen: { kms: { address: '127.0.0.1', port: 2 } },
      tokens: { main: { ...token, label: 'other', workers: 4 }, second: token },
      groups: { g: { tokens: ['main', 'second'] } },
      defaultGroup: 'g',
    })
    const first = reload(config(), changed, parts)
    expect([...first.needsRestart].sort()).toEqual([
      ...['defaultGroup', 'groups', 'listen.kms', 'regions', 'tokens.main', 'tokens.second'],
    ])
    expect(first.config.tokens.main).toEqual(config().tokens.main)
    expect(first.config.regions).toEqual(config().regions)
    const second = reload(first.config, changed, parts)
    expect(second.needsRestart).toEqual(first.needsRestart)
    expect(reload(second.config, config(), parts).needsRestart).toEqual([])
  })

  it('reads certificates again, those of the same name too', async () => {
    const same = reload(withTls('one.pem'), withTls('one.pem'), parts)
    expect(same.needsRestart).toEqual([])
    const other = reload(same.config, withTls('two.pem'), parts)
    expect(other.needsRestart).toEqual([])
    expect(certificates.map(({ cert }) => cert.toString())).toEqual(['one.pem', 'two.pem'])
    expect(other.config.listen.kms?.tls?.certificateFile).toBe(path.join(directory, 'two.pem'))
  })

  it.each(['relay', 'xks'])('does the same for the listener %s', (name) => {
    const of = (certificateFile: string) =>
      config({ listen: { [name]: { address: '127.0.0.1', port: 1, tls: { certificateFile, keyFile: 'key.pem' } } } })
    const reloaded = reload(of('one.pem'), of('two.pem'), parts)
    expect(reloaded).toMatchObject({ needsRestart: [], problems: [], config: of('two.pem') })
    expect(certificates.map(({ cert }) => cert.toString())).toEqual(['two.pem'])
  })

  it('keeps the old certificates when the new ones are wrong or gone, and says so', () => {
    refuses = true
    const wrong = reload(withTls('one.pem'), withTls('two.pem'), parts)
    expect(wrong.problems).toEqual([
      expect.objectContaining({ at: 'listen.kms.tls', cause: expect.stringContaining('PEM is wrong') }),
    ])
    expect(wrong.needsRestart).toEqual(['listen.kms'])
    refuses = false
    const gone = reload(withTls('one.pem'), withTls('none.pem'), parts)
    expect(gone.problems[0]?.cause).toContain('ENOENT')
    expect(gone.config.listen.kms?.tls?.certificateFile).toBe(path.join(directory, 'one.pem'))
  })

  it('leaves it to a new process whether clients are asked for certificates', () => {
    const reloaded = reload(withTls('one.pem'), withTls('one.pem', { clientCaFile: 'ca.pem' }), parts)
    expect(reloaded.needsRestart).toEqual(['listen.kms'])
    expect(certificates).toEqual([])
  })
})
