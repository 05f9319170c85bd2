/** How a worker starts, refuses to start, ends and survives: PIN, token, pipe, objects that come and go behind its back. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PinFileIdentity } from '../../src/hsm/frames.ts'
import type { ObjectSummary } from '../../src/hsm/port.ts'
import {
  algorithmCode,
  generateKey,
  keyFields,
  startWorker,
  type TestWorker,
  WorkerRefused,
} from '../support/hsm-worker.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

let token: TestToken
beforeAll(async () => {
  token = await createTestToken()
})
afterAll(async () => {
  await token?.[Symbol.asyncDispose]()
})

async function refusedStart(overrides: Parameters<typeof startWorker>[1]) {
  try {
    const worker = await startWorker(token, overrides)
    await worker[Symbol.asyncDispose]()
  } catch (error) {
    if (error instanceof WorkerRefused) return error.failure
    throw error
  }
  throw new Error('the worker started')
}

async function identityOf(file: string): Promise<PinFileIdentity> {
  const { ino, ctimeNs, size } = await stat(file, { bigint: true })
  return { inode: `${ino}`, changeTimeNs: `${ctimeNs}`, bytes: Number(size) }
}

describe('the start of a worker', () => {
  it('reports a wrong PIN by number and does not say what it was', async () => {
    const pinFile = path.join(token.directory, 'wrong-pin')
    await writeFile(pinFile, 'wrong-secret\n', { mode: 0o600 })
    const failure = await refusedStart({ pinFile })
    expect(failure).toMatchObject({ code: 'KeyUnavailable', action: 'O', rv: 0xa0, call: 'C_Login' })
    expect(JSON.stringify(failure)).not.toContain('wrong-secret')
  })

  it('does not try a PIN file again that was refused, until the file changes', async () => {
    const pinFile = path.join(token.directory, 'refused-pin')
    await writeFile(pinFile, 'wrong-secret', { mode: 0o600 })
    const refusedPin = await identityOf(pinFile)
    const failure = await refusedStart({ pinFile, refusedPin })
    expect(failure).toMatchObject({ code: 'KeyUnavailable', action: 'O', rv: 0, call: '' })
    await writeFile(pinFile, 'also-wrong', { mode: 0o600 })
    expect(await refusedStart({ pinFile, refusedPin })).toMatchObject({ rv: 0xa0 })
  })

  it('tells the identity of the PIN file that it used', async () => {
    await using worker = await startWorker(token)
    expect(worker.ready.pin).toEqual(await identityOf(token.pinFile))
  })

  it('names what is missing: the PIN file, the module, the token', async () => {
    expect((await refusedStart({ pinFile: '/nonexistent/pin' })).detail).toMatch(/PIN file cannot be opened: ENOENT/)
    const empty = path.join(token.directory, 'empty-pin')
    await writeFile(empty, '\n')
    expect((await refusedStart({ pinFile: empty })).detail).toMatch(/PIN file is empty/)
    expect((await refusedStart({ module: '/nonexistent/module.so' })).detail).toMatch(/module cannot be loaded/)
    expect((await refusedStart({ label: 'nobody' })).detail).toMatch(/no token with label nobody/)
    expect((await refusedStart({ serial: '0000' })).detail).toMatch(/no token with serial 0000/)
  })

  it('finds its token by serial too', async () => {
    await using worker = await startWorker(token, { serial: token.serial })
    expect(worker.ready.label).toBe(token.label)
  })

  it('refuses work before it is configured, a second configuration, and a role that it has not', async () => {
    await using worker = await startWorker(token)
    expect((await worker.refusal('configure', { configuration: {} })).code).toBe('ValidationFailed')
    expect((await worker.refusal('enumerate', {})).code).toBe('Unsupported')
  })
})

describe('the end of a worker', () => {
  it('is orderly when the pipe closes', async () => {
    const worker = await startWorker(token)
    ;(worker.child.stdio[3] as Duplex).destroy()
    expect(await worker.exit()).toBe(0)
  })

  it('comes after everything that was asked before when it drains', async () => {
    const worker = await startWorker(token)
    const answers = Array.from({ length: 50 }, () => worker.ask('random', { count: 100 }))
    const drained = worker.ask('drain', {})
    expect(await Promise.all(answers)).toHaveLength(50)
    expect(await drained).toEqual({})
    expect(await worker.exit()).toBe(0)
  })

  it.each(['serve', 'manage'] as const)('drains role %s', async (role) => {
    const worker = await startWorker(token, { role })
    if (role === 'manage') await generateKey(worker, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' })
    await worker.ask('drain', {})
    expect(await worker.exit()).toBe(0)
  })

  it('comes at once when the pipe carries garbage', async () => {
    const worker = await startWorker(token)
    ;(worker.child.stdio[3] as Duplex).write(randomBytes(64))
    expect(await worker.exit()).toBe(0)
    expect(worker.stderr()).toContain('pipe broken')
  })

  it('comes with the death of its parent', async () => {
    const support = path.resolve(import.meta.dirname, '../support/hsm-worker.ts')
    const script = `
      import { startWorker } from ${JSON.stringify(support)}
      const worker = await startWorker(${JSON.stringify(token)})
      process.stdout.write(String(worker.child.pid))
      process.kill(process.pid, 'SIGKILL')`
    const parent = spawnSync(process.execPath, ['--input-type=module-typescript', '--eval', script], {
      encoding: 'utf8',
    })
    const pid = Number(parent.stdout)
    expect(pid, parent.stderr).toBeGreaterThan(0)
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false)
  })
})

/** A zombie that nobody reaps is as dead as one that is gone. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

describe('a worker whose token changes', () => {
  let manage: TestWorker
  let serve: TestWorker
  const hmac = algorithmCode('HMAC_SHA_256')
  const message = Buffer.from('message')
  beforeAll(async () => {
    manage = await startWorker(token, { role: 'manage' })
    serve = await startWorker(token)
  })
  afterAll(async () => {
    await serve?.[Symbol.asyncDispose]()
    await manage?.[Symbol.asyncDispose]()
  })

  it('answers KeyUnavailable for an object that never was, and finds it once it was made', async () => {
    const objectId = randomBytes(16)
    const key = {
      purpose: 'kms',
      spec: 'HMAC_256',
      construction: 'none',
      session: 0,
      objectId,
      publicKey: Buffer.alloc(0),
    } as const
    const ask = { ...keyFields(key), algorithm: hmac, message }
    expect(await serve.refusal('mac', ask)).toMatchObject({ code: 'KeyUnavailable', action: 'H' })
    await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC', objectId })
    await serve.ask('forget', { objectId, label: '' })
    expect((await serve.ask('mac', ask)).mac).toHaveLength(32)
  })

  it('finds a key again that another process destroyed and made anew under the same id', async () => {
    const objectId = randomBytes(16)
    const intent = { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC', objectId } as const
    const key = await generateKey(manage, intent)
    const ask = { ...keyFields(key), algorithm: hmac, message }
    const { mac: before } = await serve.ask('mac', ask)
    expect(await manage.ask('destroy', keyFields(key))).toEqual({ destroyed: 1 })
    await generateKey(manage, intent)
    const { mac: after } = await serve.ask('mac', ask)
    expect(Buffer.from(after).equals(Buffer.from(before))).toBe(false)
  })

  it('answers KeyUnavailable for a destroyed key, also for what was derived from it once it is forgotten', async () => {
    const key = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
    const fields = { ...keyFields(key), algorithm: algorithmCode('SEAL'), prefix: message, context: message }
    const { output } = await serve.ask('encrypt', { ...fields, data: Buffer.from('x') })
    const data = Buffer.from(output)
    await serve.ask('forget', { objectId: key.objectId, label: '' })
    await manage.ask('destroy', keyFields(key))
    expect(await serve.refusal('decrypt', { ...fields, data })).toMatchObject({ code: 'KeyUnavailable' })
    expect(await serve.refusal('encrypt', { ...fields, data: Buffer.from('x') })).toMatchObject({
      code: 'KeyUnavailable',
    })
  })

  it('destroys what is there, says so, and takes absence for success', async () => {
    const key = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' })
    expect(await manage.ask('destroy', keyFields(key))).toEqual({ destroyed: 1 })
    expect(await manage.ask('destroy', keyFields(key))).toEqual({ destroyed: 0 })
    expect((await manage.ask('attributes', keyFields(key))).object).toBeNull()
  })

  it('remembers the public key of a curve key in the token, for a lost answer or a lost catalog', async () => {
    for (const spec of ['ECC_NIST_P384', 'ECC_NIST_EDWARDS25519', 'RSA_2048'] as const) {
      const key = await generateKey(manage, { spec, usage: 'SIGN_VERIFY' })
      for (const worker of [manage, serve]) {
        const { publicKey, spec: found } = (await worker.ask('attributes', keyFields(key))).object as ObjectSummary
        expect(found).toBe(spec)
        expect(key.publicKey.equals(publicKey as Uint8Array)).toBe(true)
      }
      const { objects } = await manage.ask('enumerate', {})
      const ours = (objects as ObjectSummary[]).filter(({ objectId }) => key.objectId.equals(objectId))
      expect(ours).toHaveLength(1)
    }
  })

  it('does not make a second object of an id', async () => {
    const objectId = randomBytes(16)
    await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC', objectId })
    const again = generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC', objectId })
    await expect(again).rejects.toThrow(/AlreadyExists/)
  })

  it('serves many clients while manage creates and destroys', async () => {
    const key = await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' })
    const ask = { ...keyFields(key), algorithm: hmac, message }
    const churn = (async () => {
      for (let i = 0; i < 10; i++) {
        const other = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' })
        await manage.ask('destroy', keyFields(other))
      }
    })()
    const macs = await Promise.all(Array.from({ length: 500 }, () => serve.ask('mac', ask)))
    await churn
    expect(new Set(macs.map(({ mac }) => Buffer.from(mac).toString('hex'))).size).toBe(1)
  })

  it('keeps session objects to itself and to their purpose, and destroys them', async () => {
    const intent = { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC', residence: 'session' } as const
    const key = await generateKey(serve, intent)
    expect(key.session).toBeGreaterThan(0)
    const ask = { ...keyFields(key), algorithm: hmac, message }
    expect((await serve.ask('mac', ask)).mac).toHaveLength(32)
    await using another = await startWorker(token)
    expect(await another.refusal('mac', ask)).toMatchObject({ code: 'KeyUnavailable' })
    const asSystem = { ...keyFields(key, { purpose: 'system' }), algorithm: hmac, message }
    expect(await serve.refusal('mac', asSystem)).toMatchObject({ code: 'KeyUsageInvalid' })
    expect(await serve.ask('destroy', keyFields(key))).toEqual({ destroyed: 1 })
    expect(await serve.refusal('mac', ask)).toMatchObject({ code: 'KeyUnavailable' })
  })

  it('refuses a call whose budget is spent, and requests out of range', async () => {
    const key = await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' })
    const ask = { ...keyFields(key), algorithm: hmac, message }
    expect(await serve.refusal('mac', ask, 0)).toMatchObject({ code: 'DeadlineExceeded' })
    expect(await serve.refusal('mac', { ...ask, purpose: 9 })).toMatchObject({ code: 'ValidationFailed' })
    expect(await serve.refusal('mac', { ...ask, spec: 250 })).toMatchObject({ code: 'ValidationFailed' })
    expect(await serve.refusal('mac', { ...ask, algorithm: 250 })).toMatchObject({ code: 'ValidationFailed' })
    expect(await serve.refusal('mac', { ...ask, spec: 13 })).toMatchObject({ code: 'KeyUsageInvalid' })
    expect(await serve.refusal('random', { count: 1 << 30 })).toMatchObject({ code: 'ValidationFailed' })
    for (const intent of [null, 5, { spec: 'constructor' }, { spec: 'HMAC_256', usage: 'SIGN_VERIFY' }]) {
      const { code } = await manage.refusal('generate', { intent })
      expect(['Unsupported', 'KeyUsageInvalid']).toContain(code)
    }
  })
})

describe('adoption', () => {
  it('describes a foreign pair as it is, weak attributes included, and uses it for what it was registered', async () => {
    await using own = await createTestToken()
    const pin = (await readFile(own.pinFile, 'utf8')).trim()
    const env = { ...process.env, ...own.env, HSMGATE_TEST_PIN: pin }
    const tool = (...args: string[]) => {
      const run = spawnSync(
        'pkcs11-tool',
        ['--module', own.module, '--token-label', own.label, '--login', '--pin', 'env:HSMGATE_TEST_PIN', ...args],
        { env, encoding: 'utf8' },
      )
      expect(run.status, run.stderr).toBe(0)
    }
    tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'legacy', '--id', '0102', '--usage-sign')
    tool('--keygen', '--key-type', 'AES:32', '--label', 'weak', '--id', '0304', '--extractable')
    await using manage = await startWorker(own, { role: 'manage' })
    await using serve = await startWorker(own)

    const { object } = await manage.ask('adopt', { request: { group: 'test', label: 'legacy' } })
    const pair = object as ObjectSummary
    expect(pair).toMatchObject({ label: 'legacy', objectClass: 'private', spec: 'ECC_NIST_P256', extractable: false })
    expect(pair.publicKey).toHaveLength(91)
    const key = {
      purpose: 'kms',
      spec: 'ECC_NIST_P256',
      construction: 'none',
      session: 0,
      objectId: Buffer.from(pair.objectId),
      label: 'legacy',
      publicKey: Buffer.alloc(0),
    } as const
    const input = randomBytes(32)
    const fields = { ...keyFields(key), algorithm: algorithmCode('ECDSA'), input }
    const { signature } = await serve.ask('sign', fields)
    expect(await serve.ask('verify', { ...fields, signature: Buffer.from(signature) })).toEqual({ valid: 1 })
    expect(await serve.ask('verify', { ...fields, signature: randomBytes(64) })).toEqual({ valid: 0 })
    expect(await serve.ask('verify', { ...fields, signature: randomBytes(7) })).toEqual({ valid: 0 })

    const weak = (await manage.ask('adopt', { request: { group: 'test', objectId: Buffer.from('0304', 'hex') } }))
      .object
    expect(weak).toMatchObject({ objectClass: 'secret', spec: 'SYMMETRIC_DEFAULT', extractable: true })
    expect((await manage.refusal('adopt', { request: { group: 'test', label: 'nobody' } })).code).toBe('NotFound')
    expect((await manage.refusal('adopt', { request: { group: 'test' } })).code).toBe('ValidationFailed')

    tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'legacy', '--id', '0506', '--usage-sign')
    expect((await manage.refusal('adopt', { request: { group: 'test', label: 'legacy' } })).code).toBe(
      'ValidationFailed',
    )
    tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'twin', '--id', '0102', '--usage-sign')
    await serve.ask('forget', { objectId: key.objectId, label: '' })
    const withoutLabel = { ...fields, ...keyFields({ ...key, label: '' }) }
    expect(await serve.refusal('sign', withoutLabel)).toMatchObject({ code: 'KeyUnavailable' })
    expect((await serve.ask('sign', fields)).signature).toHaveLength(64)
  })
})
