/** `hsmgate doctor` on real modules: SoftHSM2, NSS softokn, and SoftHSM2 behind the shim that makes it fail. No gateway runs. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Report } from '../../src/cli/diagnosis.ts'
import { runOk } from '../support/command.ts'
import { type Ended, runHsmgateProcess } from '../support/hsmgate-process.ts'
import { createShimmedToken } from '../support/shim.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'
import { createSoftoknToken } from '../support/softokn.ts'

let home: string
beforeAll(async () => {
  home = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-doctor-'))
})
afterAll(() => rm(home, { recursive: true, force: true }))

function doctor(words: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Ended> {
  return runHsmgateProcess(['doctor', ...words], { HOME: home, ...environment })
}

const report = ({ out }: Ended): Report => JSON.parse(out) as Report
const verdict = (found: Report, spec: string) => found.keySpecs?.find((row) => row.spec === spec)

/** Writes a file below the test's home. */
async function write(name: string, text: string): Promise<string> {
  const file = path.join(home, name)
  await writeFile(file, text, { mode: 0o600 })
  return file
}

describe('doctor on SoftHSM2', () => {
  let token: TestToken
  let words: readonly string[]
  beforeAll(async () => {
    token = await createTestToken('examined')
    const pin = await readFile(token.pinFile, 'utf8')
    const make = (more: readonly string[]) =>
      runOk(
        '/usr/bin/pkcs11-tool',
        ['--module', token.module, '--token-label', token.label, '--login', '--pin', 'env:TEST_PIN', ...more],
        {
          env: { ...token.env, TEST_PIN: pin, PATH: '/usr/bin:/bin' },
        },
      )
    await make(['--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'strong-one', '--id', '01', '--sensitive'])
    await make(['--keygen', '--key-type', 'AES:32', '--label', 'weak-one', '--id', '02', '--extractable'])
    words = ['--module', token.module, '--label', token.label, '--pin-file', token.pinFile, '--profile', 'softhsm']
  })
  afterAll(() => token[Symbol.asyncDispose]())

  it('tells what the token is, what it can do and how fast, without a gateway', async () => {
    const ended = await doctor([...words, '--json'], token.env)
    expect(ended).toMatchObject({ code: 0, err: '' })
    const found = report(ended)
    expect(found.facts?.token).toMatchObject({ label: 'examined', serial: token.serial, maxSessions: 'none' })
    expect(found.facts?.mechanisms.map(({ name }) => name)).toEqual(expect.arrayContaining(['AES_GCM', 'EDDSA']))
    expect(found.login).toEqual({ state: 'done' })
    expect(verdict(found, 'RSA_4096')?.usages).toEqual(['ENCRYPT_DECRYPT', 'SIGN_VERIFY'])
    expect(verdict(found, 'ML_DSA_65')).toMatchObject({ usages: [], refused: [{ why: expect.stringMatching(/3\.2/) }] })
    expect(verdict(found, 'ECC_NIST_EDWARDS25519')?.refused).toEqual([
      { what: 'ED25519_PH_SHA_512', why: expect.stringMatching(/plain Ed25519 signature/) },
    ])
    expect(found.measurement?.ivs).toEqual({ given: 'used', zero: 'used', made: 'zero', drawn: 256 })
    expect(found.measurement?.concurrency).toMatchObject({ sessions: 8, wrong: 0, failed: {} })
    expect(found.measurement?.rates.map(({ what }) => what)).toContain('P-256 sign')
    expect(found.pool?.workers).toBe(2)
    expect(found.problems).toEqual([])
  })

  it('points out the objects that are weak and those that are not hsmgate’s, and leaves them as they were', async () => {
    const { out, code } = await doctor([...words, '--measure', '0'], token.env)
    expect(code).toBe(0)
    expect(out).toMatch(/^ {2}2 private and secret keys, 0 of them hsmgate's$/m)
    expect(out).toMatch(/^ {2}secret +SYMMETRIC_DEFAULT +weak-one +02 +not hsmgate's, extractable/m)
    expect(out).toMatch(/^ {2}private +ECC_NIST_P256 +strong-one +01 +not hsmgate's$/m)
  })

  it('says what can be known without a PIN, and tries none', async () => {
    const ended = await doctor(['--module', token.module, '--serial', token.serial, '--json'], token.env)
    expect(ended.code).toBe(0)
    const found = report(ended)
    expect(found.login).toEqual({ state: 'not tried', why: 'no PIN file was given' })
    expect(found.facts?.mechanisms.length).toBeGreaterThan(50)
    expect(found.capabilities).toBeUndefined()
  })

  it('examines the only initialised token when none is named', async () => {
    const { facts } = report(await doctor(['--module', token.module, '--json'], token.env))
    expect(facts?.token?.label).toBe('examined')
  })

  it('examines a token of the configuration', async () => {
    const { module, label, pinFile, env } = token
    const tokens = { main: { module, label, pinFile, profile: 'softhsm', env } }
    const config = await write('config.json', JSON.stringify({ development: true, tokens }))
    const ended = await doctor(['--config', config, '--token', 'main', '--measure', '0', '--json'])
    expect(ended).toMatchObject({ code: 0, err: '' })
    expect(report(ended).login.state).toBe('done')
    const absent = await doctor(['--config', config, '--token', 'other'])
    expect(absent).toMatchObject({ code: 1, err: expect.stringMatching(/no token 'other'[\s\S]*remedy: .*main/) })
  })
})

describe('doctor on NSS softokn', () => {
  it('reports what that module lacks, with reasons, and what it does well', async () => {
    await using token = await createSoftoknToken()
    const { module, label, pinFile, initArgs } = token
    const words = [
      '--module',
      module,
      '--init-args',
      initArgs,
      '--label',
      label,
      '--pin-file',
      pinFile,
      '--measure',
      '1',
      '--json',
    ]
    const ended = await doctor(words)
    expect(ended).toMatchObject({ code: 0, err: '' })
    const found = report(ended)
    expect(found.facts?.tokens).toHaveLength(2)
    expect(found.capabilities).toMatchObject({ construction: 'direct', gcmIv: 'caller' })
    expect(verdict(found, 'ECC_NIST_P384')?.usages).toEqual(['SIGN_VERIFY', 'KEY_AGREEMENT'])
    expect(verdict(found, 'SYMMETRIC_DEFAULT')?.usages).toEqual(['ENCRYPT_DECRYPT'])
    expect(verdict(found, 'ECC_SECG_P256K1')).toMatchObject({
      usages: [],
      refused: [{ what: 'SIGN_VERIFY', why: expect.stringMatching(/CKR_/) }],
    })
    expect(verdict(found, 'ECC_NIST_EDWARDS25519')?.refused[0]?.why).toMatch(/CKR_MECHANISM_INVALID/)
    expect(found.measurement?.concurrency.wrong).toBe(0)
    expect(found.objects).toEqual([])
  })

  it('says what to do when the module wants its library parameters', async () => {
    await using token = await createSoftoknToken()
    const { code, err } = await doctor(['--module', token.module, '--label', token.label])
    expect(code).toBe(1)
    expect(err).toMatch(/loading the module: [\s\S]*remedy: /)
  })
})

describe('doctor on what is no module', () => {
  it('names the file that is missing', async () => {
    const { code, err } = await doctor(['--module', '/nonexistent/libhsm.so'])
    expect(code).toBe(1)
    expect(err).toMatch(/^\/nonexistent\/libhsm\.so: the module does not exist\n {2}remedy: install/)
  })

  it('says what the loader says of a file that is no library', async () => {
    const { code, err } = await doctor(['--module', await write('text.so', 'not a library')])
    expect(code).toBe(1)
    expect(err).toMatch(/cannot be loaded: [\s\S]*remedy: /)
  })

  it('says so when a library is no PKCS#11 module', async () => {
    const { code, err } = await doctor(['--module', 'libz.so.1'])
    expect(code).toBe(1)
    expect(err).toMatch(/C_GetFunctionList/)
  })

  it('names the token that is missing', async () => {
    await using token = await createTestToken('present')
    const { code, err } = await doctor(['--module', token.module, '--label', 'absent'], token.env)
    expect(code).toBe(1)
    expect(err).toMatch(/no token with label absent/)
  })
})

describe('doctor and a module in trouble', () => {
  it('outlives a module that crashes when it is initialised', async () => {
    await using token = await createShimmedToken()
    token.rules(['C_Initialize crash'])
    const ended = await doctor(['--module', token.module, '--json'], token.env)
    expect(ended.code).toBe(1)
    expect(report(ended).problems).toMatchObject([{ cause: expect.stringMatching(/died \(ended by SIGSEGV\)/) }])
  })

  it('keeps what it knew when the module crashes under use, and goes on with the objects', async () => {
    await using token = await createShimmedToken()
    token.rules(['C_Sign from=3 crash'])
    const words = ['--module', token.module, '--label', token.label, '--pin-file', token.pinFile, '--json']
    const ended = await doctor(words, token.env)
    expect(ended.code).toBe(1)
    const found = report(ended)
    expect(found).toMatchObject({ login: { state: 'done' }, objects: [] })
    expect(found.problems).toMatchObject([{ cause: expect.stringMatching(/trying what the token can do.*SIGSEGV/) }])
  })

  it('kills a module that hangs', async () => {
    await using token = await createShimmedToken()
    token.rules(['C_GetMechanismList hang'])
    const { code, err } = await doctor(
      ['--module', token.module, '--label', token.label, '--step-limit', '2'],
      token.env,
    )
    expect(code).toBe(1)
    expect(err).toMatch(/no answer within 2 s[\s\S]*remedy: /)
  })

  it('reports answers that do not verify', async () => {
    await using token = await createShimmedToken()
    token.rules(['C_Sign flip'])
    const about = ['--module', token.module, '--label', token.label, '--pin-file', token.pinFile]
    const words = [...about, '--measure', '1', '--json']
    const found = report(await doctor(words, token.env))
    expect(verdict(found, 'ECC_NIST_P256')).toMatchObject({ usages: ['KEY_AGREEMENT'] })
    expect(found.problems).toMatchObject([{ cause: expect.stringMatching(/answers were wrong/) }])
  })
})

describe('doctor and a PIN that is wrong', () => {
  it('tries it once, ever, until the file changes', async () => {
    await using token = await createShimmedToken()
    const right = await readFile(token.pinFile, 'utf8')
    const pinFile = await write('pin', 'not-the-pin')
    const about = ['--module', token.module, '--label', token.label, '--measure', '0', '--json']
    const words = [...about, '--pin-file', pinFile]
    const first = await doctor(words, token.env)
    expect(first.code).toBe(1)
    expect(report(first).login).toEqual({ state: 'refused', why: 'CKR_PIN_INCORRECT' })
    const again = await doctor(words, token.env)
    expect(again.code).toBe(1)
    expect(report(again).login.state).toBe('not tried')
    expect(report(again).problems).toMatchObject([{ cause: expect.stringMatching(/refused this PIN before/) }])
    expect(token.count('C_Login')).toBe(1)
    expect(`${first.out}${first.err}${again.out}${again.err}`).not.toContain('not-the-pin')

    await write('pin', right)
    expect(report(await doctor(words, token.env)).login.state).toBe('done')
  })

  it('does not try the PIN that the gateway’s record names', async () => {
    await using token = await createShimmedToken()
    await writeFile(token.pinFile, 'not-the-pin')
    const { module, label, pinFile, env } = token
    const config = path.join(token.directory, 'config.json')
    await writeFile(config, JSON.stringify({ development: true, tokens: { main: { module, label, pinFile, env } } }))
    expect((await doctor(['--config', config])).code).toBe(1)
    const latched = JSON.parse(await readFile(path.join(token.directory, 'pin-refused.json'), 'utf8'))
    expect(latched.refusals.map((refusal: { token: string }) => refusal.token)).toContain(`label:${label}`)
    expect((await doctor(['--config', config])).err).toMatch(/hsmgate token retry-login main/)
    expect(token.count('C_Login')).toBe(1)
  })
})
