/** What cannot start says so once, with cause and remedy, and ends with status 1; the token sees no more than it must. */
import { once } from 'node:events'
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runHsmgateProcess } from '../support/hsmgate-process.ts'
import { serveGateway, writeServeConfig } from '../support/served-gateway.ts'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'

const patience = { timeout: 120_000 }
let token: ShimmedToken

beforeEach(async () => {
  token = await createShimmedToken()
})

afterEach(() => token[Symbol.asyncDispose]())

const state = () => path.join(token.directory, 'state')

/** What an operator reads: everything but the lines of the log. */
async function start(
  config?: Readonly<Record<string, unknown>>,
): Promise<{ code: unknown; text: string; log: string }> {
  const file = await writeServeConfig(token, config)
  const { code, out, err } = await runHsmgateProcess(['serve', '--config', file])
  expect(out).toBe('')
  const isLog = (line: string) => line.startsWith('{')
  const lines = err.split('\n')
  return { code, text: lines.filter((line) => !isLog(line)).join('\n'), log: lines.filter(isLog).join('\n') }
}

const oneMessage = (at: string, cause: string) => new RegExp(`^${at}: [^\n]*${cause}[^\n]*\n {2}remedy: [^\n]+\n$`)

const tokens = (changes: object) => {
  const { module, label, pinFile, env } = token
  return { tokens: { softhsm: { module, label, pinFile, env, profile: 'softhsm', ...changes } } }
}

describe('a gateway that cannot start', () => {
  it('because the PIN is wrong tries it once, across restarts, until the file changes', patience, async () => {
    const right = await readFile(token.pinFile, 'utf8')
    await writeFile(token.pinFile, '00000000')
    for (let attempt = 0; attempt < 2; attempt++) {
      const { code, text, log } = await start()
      expect(code).toBe(1)
      expect(text).toMatch(oneMessage('tokens\\.softhsm', 'the token refused the PIN'))
      expect(`${text}${log}`).not.toContain('00000000')
      expect(token.count('C_Login')).toBe(1)
    }
    await writeFile(token.pinFile, right)
    await using served = await serveGateway(token)
    expect(served.endpoint).toMatch(/^http/)
    expect(token.events().filter(({ call, rv }) => call === 'C_Login' && rv !== 0)).toHaveLength(1)
  })

  it.each([
    [
      'the module is missing',
      () => tokens({ module: '/nonexistent/module.so' }),
      'tokens\\.softhsm\\.module',
      'does not exist',
    ],
    ['the module is no module', () => tokens({ module: token.pinFile }), 'tokens\\.softhsm', ''],
    [
      'the module refuses to start',
      () => tokens({ env: { ...token.env, SOFTHSM2_CONF: '/nonexistent/softhsm2.conf' } }),
      'tokens\\.softhsm',
      'C_Initialize: CKR_GENERAL_ERROR',
    ],
    ['the token is missing', () => tokens({ label: 'another-token' }), 'tokens\\.softhsm', 'another-token'],
    [
      'the PIN file is missing',
      () => tokens({ pinFile: '/nonexistent/pin' }),
      'tokens\\.softhsm\\.pinFile',
      'does not exist',
    ],
    ['the configuration has an unknown key', () => ({ gropus: {} }), 'gropus', 'unknown key'],
  ])('because %s says so once and logs in nowhere', patience, async (_, config, at, cause) => {
    const { code, text } = await start(config())
    expect(code).toBe(1)
    expect(text).toMatch(oneMessage(at, cause))
    expect(token.count('C_Login')).toBe(0)
    expect((await readdir(state())).filter((name) => name.startsWith('audit'))).toEqual([])
  })

  it('because the configuration cannot be read says so once', patience, async () => {
    const file = await writeServeConfig(token)
    await writeFile(file, '{"tokens": ')
    for (const [words, cause] of [
      [file, 'JSON'],
      [state(), ''],
      [path.join(state(), 'none.json'), 'does not exist'],
    ] as const) {
      const { code, err } = await runHsmgateProcess(['serve', '--config', words])
      expect(code).toBe(1)
      expect(err).toMatch(oneMessage('[^:\n]+', cause))
    }
    await chmod(file, 0o600)
    expect(await readdir(state())).toEqual(['config.json'])
  })

  it('because a port is taken, or its state is in use, says so once and disturbs nobody', patience, async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    for (const [at, listen] of [
      ['listen\\.kms', { kms: { port }, operator: { http: null } }],
      ['listen\\.operator\\.http', { kms: null, operator: { http: { port } } }],
    ] as const) {
      const { code, text } = await start({ listen })
      expect(code).toBe(1)
      expect(text).toMatch(oneMessage(at, `127\\.0\\.0\\.1:${port} is taken by another process`))
    }
    server.close()

    await using first = await serveGateway(token)
    const logins = token.count('C_Login')
    const { code, text } = await start()
    expect(code).toBe(1)
    expect(text).toMatch(oneMessage(state(), 'another gateway runs on this state'))
    expect(token.count('C_Login')).toBe(logins)
    expect((await fetch(`${first.operatorEndpoint}/readyz`)).status).toBe(200)
  })
})
