/** The built addon on a real SoftHSM2 token: what it computes is checked with Node's OpenSSL, what it promises in addon.ts by use. */
import { execFileSync, spawn } from 'node:child_process'
import crypto from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { type JobOp, jobOp, loadAddon } from '../../src/hsm/worker/addon.ts'
import {
  decodeAttributes,
  decodeHandles,
  encodeAttributeTypes,
  encodeParams,
  encodeTemplate,
  type Template,
} from '../../src/hsm/worker/pack.ts'
import { createShimmedToken } from '../support/shim.ts'
import { createToken, openClient, slotOf, userPin } from './pool-client.ts'

const addon = loadAddon()
const token = createToken('addon')
const slot = slotOf(token.module, 'addon')
const client = await openClient(token.module, slot)
const { run } = client

afterAll(async () => {
  await client.pool.close()
  token.module.finalize()
  token.remove()
})

const cka = {
  class: 0x0,
  token: 0x1,
  value: 0x11,
  keyType: 0x100,
  id: 0x102,
  encrypt: 0x104,
  decrypt: 0x105,
  sign: 0x108,
  verify: 0x10a,
  modulus: 0x120,
  modulusBits: 0x121,
  publicExponent: 0x122,
  ecParams: 0x180,
  ecPoint: 0x181,
}
const ckm = { rsaKeyGen: 0, rsaPss: 0xd, sha256: 0x250, ecKeyGen: 0x1040, ecdsa: 0x1041, aesGcm: 0x1087, sha1: 0x220 }
const prime256v1 = Buffer.from('06082a8648ce3d030107', 'hex')

async function createAesKey(value: Uint8Array): Promise<bigint> {
  const aux = encodeTemplate([
    [cka.class, 4],
    [cka.keyType, 0x1f],
    [cka.token, false],
    [cka.value, value],
    [cka.encrypt, true],
    [cka.decrypt, true],
  ])
  const created = await run({ op: jobOp.createObject, aux })
  expect(created.rv).toBe(0)
  return created.handle
}

async function generatePair(mechanism: number, publicTemplate: Template, privateTemplate: Template) {
  const pair = await run({
    op: jobOp.generateKeyPair,
    mechanism,
    input: encodeTemplate([[cka.token, false], ...publicTemplate]),
    aux: encodeTemplate([[cka.token, false], ...privateTemplate]),
  })
  expect(pair.rv).toBe(0)
  return { publicKey: pair.handle, privateKey: pair.handle2 }
}

const generateRsaPair = () =>
  generatePair(
    ckm.rsaKeyGen,
    [
      [cka.modulusBits, 2048],
      [cka.publicExponent, Buffer.from('010001', 'hex')],
    ],
    [
      [cka.decrypt, true],
      [cka.sign, true],
    ],
  )

async function readRsaPublicKey(handle: bigint): Promise<crypto.KeyObject> {
  const types = encodeAttributeTypes([cka.modulus, cka.publicExponent])
  const read = await run({ op: jobOp.getAttributes, key: handle, aux: types, outMax: 1024 })
  const attributes = decodeAttributes(read.output!)
  const n = attributes.get(cka.modulus)!.toString('base64url')
  const e = attributes.get(cka.publicExponent)!.toString('base64url')
  return crypto.createPublicKey({ format: 'jwk', key: { kty: 'RSA', n, e } })
}

describe('openModule', () => {
  it('describes the module, its slots and its mechanisms', () => {
    expect(token.module.manufacturer).toBe('SoftHSM')
    expect(token.module.cryptokiVersion).toBe('2.40')
    const found = token.module.slots().find((entry) => entry.slot === slot)!
    expect(found).toMatchObject({ tokenPresent: true, label: 'addon', model: 'SoftHSM v2' })
    expect(found.serial).toMatch(/^[0-9a-f]{16}$/)
    expect(token.module.mechanisms(slot)).toContainEqual(expect.objectContaining({ type: ckm.aesGcm, maxKeySize: 32 }))
  })

  it('says in the words of the loader why a file is no module', () => {
    expect(() => addon.openModule('/nonexistent/module.so')).toThrow(/cannot open shared object file/)
    expect(() => addon.openModule('libc.so.6')).toThrow(/C_GetFunctionList/)
  })

  it('reports the call and the return value of a refusal', () => {
    expect(() => token.module.mechanisms(12345n)).toThrow(
      expect.objectContaining({ name: 'Pkcs11Error', call: 'C_GetMechanismList', rv: 3 }),
    )
  })
})

describe('openPool', () => {
  it('rejects a wrong PIN with the answer of C_Login and wipes the PIN', async () => {
    // With a user logged in any PIN is accepted, so this needs a process of its own.
    const report = JSON.parse(await runEdge('wrong-pin').then((ended) => ended.stdout))
    expect(report).toEqual({ rv: 0xa0, call: 'C_Login', pinWiped: true })
  })

  it('wipes the PIN on success', async () => {
    const pin = Buffer.from(userPin)
    const pool = await token.module.openPool({ slot, sessions: 1, pin, onCompletions: () => {} })
    expect(pin.every((byte) => byte === 0)).toBe(true)
    await pool.close()
  })

  it('refuses options that make no sense, and wipes the PIN all the same', () => {
    const pin = Buffer.from(userPin)
    const options = { slot, sessions: 0, pin, onCompletions: () => {} }
    expect(() => token.module.openPool(options)).toThrow(RangeError)
    expect(pin.every((byte) => byte === 0)).toBe(true)
    expect(() => token.module.openPool({ ...options, sessions: 257 })).toThrow(RangeError)
    expect(() => token.module.openPool({ ...options, sessions: 1, onCompletions: null as never })).toThrow(TypeError)
  })

  it('keeps the module from being finalized under a pool', () => {
    expect(() => token.module.finalize()).toThrow('pools are still open')
  })
})

describe('submit', () => {
  it.each([16, 4096, 4097, 100_000])('encrypts %i bytes with AES-GCM as OpenSSL does', async (size) => {
    const value = crypto.randomBytes(32)
    const iv = crypto.randomBytes(12)
    const aad = Buffer.from('context')
    const plaintext = crypto.randomBytes(size)
    const key = await createAesKey(value)
    const params = encodeParams({ kind: 'gcm', iv, aad })
    const work = { mechanism: ckm.aesGcm, key, params, outMax: size + 16 }
    const encrypted = await run({ ...work, op: jobOp.encryptVerify, input: plaintext })
    const cipher = crypto.createCipheriv('aes-256-gcm', value, iv).setAAD(aad)
    const expected = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
    expect(encrypted.rv).toBe(0)
    expect(encrypted.output!.equals(expected)).toBe(true)
    const decrypted = await run({ ...work, op: jobOp.decrypt, input: expected })
    expect(decrypted.output!.equals(plaintext)).toBe(true)
  })

  it('copies a small input, so that its owner may change it at once', async () => {
    const key = await createAesKey(Buffer.alloc(32, 1))
    const params = encodeParams({ kind: 'gcm', iv: Buffer.alloc(12, 2) })
    const input = Buffer.from('before')
    const encrypting = run({ op: jobOp.encrypt, mechanism: ckm.aesGcm, key, params, input, outMax: 64 })
    input.fill('x')
    params.fill(0)
    const cipher = crypto.createCipheriv('aes-256-gcm', Buffer.alloc(32, 1), Buffer.alloc(12, 2))
    const expected = Buffer.concat([cipher.update('before'), cipher.final(), cipher.getAuthTag()])
    expect((await encrypting).output!.equals(expected)).toBe(true)
  })

  it('makes RSA-PSS signatures that OpenSSL verifies', async () => {
    const { publicKey, privateKey } = await generateRsaPair()
    const digest = crypto.createHash('sha256').update('message').digest()
    const params = encodeParams({ kind: 'pss', hashAlg: ckm.sha256, mgf: 2, saltLen: 32 })
    const signed = await run({
      op: jobOp.sign,
      mechanism: ckm.rsaPss,
      key: privateKey,
      params,
      input: digest,
      outMax: 256,
    })
    const key = await readRsaPublicKey(publicKey)
    const padding = crypto.constants.RSA_PKCS1_PSS_PADDING
    expect(crypto.verify('sha256', Buffer.from('message'), { key, padding, saltLength: 32 }, signed.output!)).toBe(true)
  })

  it('makes ECDSA signatures that OpenSSL verifies, and verifies them itself', async () => {
    const { publicKey, privateKey } = await generatePair(ckm.ecKeyGen, [[cka.ecParams, prime256v1]], [[cka.sign, true]])
    const digest = crypto.createHash('sha256').update('message').digest()
    const signed = await run({ op: jobOp.sign, mechanism: ckm.ecdsa, key: privateKey, input: digest, outMax: 64 })
    const read = await run({
      op: jobOp.getAttributes,
      key: publicKey,
      aux: encodeAttributeTypes([cka.ecPoint]),
      outMax: 256,
    })
    const point = decodeAttributes(read.output!).get(cka.ecPoint)!.subarray(-64)
    const [x, y] = [point.subarray(0, 32), point.subarray(32)].map((part) => part.toString('base64url'))
    const key = crypto.createPublicKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', x, y } })
    expect(crypto.verify('sha256', Buffer.from('message'), { key, dsaEncoding: 'ieee-p1363' }, signed.output!)).toBe(
      true,
    )
    const verifying = { op: jobOp.verify, mechanism: ckm.ecdsa, key: publicKey, aux: signed.output! }
    expect((await run({ ...verifying, input: digest })).rv).toBe(0)
    expect((await run({ ...verifying, input: crypto.randomBytes(32) })).rv).toBe(0xc0)
  })

  it.each(['sha1', 'sha256', 'sha384', 'sha512'])('decrypts what OpenSSL encrypted with OAEP and %s', async (hash) => {
    const mechanism = { sha1: 0x220, sha256: 0x250, sha384: 0x260, sha512: 0x270 }[hash]!
    const { publicKey, privateKey } = await generateRsaPair()
    const key = await readRsaPublicKey(publicKey)
    for (const message of ['', 'secret', 'x'.repeat(256 - 2 * crypto.createHash(hash).digest().length - 2)]) {
      const input = crypto.publicEncrypt({ key, oaepHash: hash }, Buffer.from(message))
      const decrypted = await run({ op: jobOp.oaepDecrypt, mechanism, key: privateKey, input, outMax: 256 })
      expect([decrypted.rv, decrypted.output?.toString()]).toEqual([0, message])
    }
    const other = crypto.publicEncrypt({ key, oaepHash: 'sha224' }, Buffer.from('secret'))
    const refused = await run({ op: jobOp.oaepDecrypt, mechanism, key: privateKey, input: other, outMax: 256 })
    expect([refused.rv, refused.output]).toEqual([0x40, null])
  })

  it('finds objects by template', async () => {
    const aux = encodeTemplate([[cka.id, Buffer.from('no such id')]])
    const found = await run({ op: jobOp.find, aux, outMax: 80 })
    expect(decodeHandles(found.output!)).toEqual([])
  })

  it('says how long a job waited and how long the module took', async () => {
    const job = await run({ op: jobOp.random, outMax: 8 })
    expect(job.output).toHaveLength(8)
    expect(job.hsmMicros).toBeGreaterThan(0)
    expect(job.queueMicros).toBeGreaterThan(0)
  })

  it('hands over many completions in one call', async () => {
    const before = client.batches()
    const jobs = await Promise.all(Array.from({ length: 2000 }, () => run({ op: jobOp.random, outMax: 16 })))
    expect(jobs.every((job) => job.rv === 0 && job.output?.length === 16)).toBe(true)
    expect(client.batches() - before).toBeLessThan(2000)
  })

  it('refuses what it cannot hold before the module sees it', () => {
    const submit = client.pool.submit.bind(client.pool)
    const op = (value: number) => value as JobOp
    expect(() => submit(1, op(0), 0, 0n, 0n, null, null, null, 0, 1000)).toThrow(RangeError)
    expect(() => submit(1, op(Math.max(...Object.values(jobOp)) + 1), 0, 0n, 0n, null, null, null, 0, 1000)).toThrow(
      RangeError,
    )
    expect(() => submit(1, jobOp.random, 0, -1n, 0n, null, null, null, 8, 1000)).toThrow(TypeError)
    expect(() => submit(1, jobOp.random, 0, 1n << 64n, 0n, null, null, null, 8, 1000)).toThrow(TypeError)
    expect(() => submit(1, jobOp.random, 0, 0n, 0n, null, null, null, 2 ** 30, 1000)).toThrow(RangeError)
    expect(() => submit(-1, jobOp.random, 0, 0n, 0n, null, null, null, 8, 1000)).toThrow(RangeError)
    expect(() => submit(1, jobOp.sign, 1.5, 0n, 0n, null, null, null, 8, 1000)).toThrow(RangeError)
    expect(() => submit(1, jobOp.sign, 1, 0n, 0n, null, 'text' as never, null, 8, 1000)).toThrow(TypeError)
    expect(() => submit(1, jobOp.sign, 1, 0n, 0n, null, new Uint16Array(1) as never, null, 8, 1000)).toThrow(TypeError)
    expect(() => submit(1, jobOp.sign, 1, 0n, 0n, new Uint8Array(65537), null, null, 8, 1000)).toThrow(RangeError)
  })

  it('refuses a job beyond the queue', async () => {
    const pool = await openClient(token.module, slot, 1)
    const jobs: Promise<unknown>[] = []
    const fill = () => {
      for (let i = 0; i < 20_000; i++) jobs.push(pool.run({ op: jobOp.random, outMax: 4096 }))
    }
    expect(fill).not.toThrow()
    const settled = await Promise.allSettled(jobs)
    const refused = settled.filter((job) => job.status === 'rejected').map((job) => String(job.reason))
    expect(refused.length).toBeGreaterThan(0)
    expect(new Set(refused)).toEqual(new Set(["Error: the pool's queue is full"]))
    await pool.pool.close()
  })
})

describe('close', () => {
  it('finishes what is queued, then refuses', async () => {
    const { pool, run: runHere } = await openClient(token.module, slot, 2)
    const jobs = Array.from({ length: 500 }, () => runHere({ op: jobOp.random, outMax: 1024 }))
    const closed = pool.close()
    await expect(runHere({ op: jobOp.random, outMax: 8 })).rejects.toThrow('the pool is closed')
    await closed
    expect((await Promise.all(jobs)).every((job) => job.rv === 0)).toBe(true)
    await pool.close()
    expect(pool.depth()).toEqual({ queued: 0, busy: 0, sessions: 0 })
  })
})

describe('the end of an environment', () => {
  it.each([
    ['ends with a pool still open', 'fall-through', 0],
    ['exits while jobs are queued', 'exit-under-load', 7],
    ['exits while a pool is opening', 'exit-while-opening', 7],
    ['closes under load and finalizes', 'close-under-load', 0],
    ['ends worker threads that use the same module', 'worker-threads', 0],
    ['ends a worker thread while its pool is opening', 'worker-while-opening', 0],
    ['reports an exception of onCompletions as uncaught', 'throwing-callback', 9],
  ])('%s', async (_behaviour, scenario, code) => {
    const ended = await runEdge(scenario)
    expect([ended.code, ended.signal, ended.stderr]).toEqual([code, null, ''])
  })
})

describe('a hung module', () => {
  it('does not keep the process from exiting with its own status', async () => {
    await using hung = await createShimmedToken()
    hung.rules(['C_GenerateRandom hang'])
    const ended = await runEdge('exit-while-hung', hung.module, hung.env)
    expect([ended.code, ended.signal, ended.stderr]).toEqual([7, null, ''])
    expect(hung.hits(0)).toBe(1)
  })
})

describe('peerCredentials', () => {
  it('names the process at the other end of a Unix socket', async () => {
    const server = net.createServer().listen(path.join(token.directory, 'peer.sock'))
    await once(server, 'listening')
    const peer = net.connect(path.join(token.directory, 'peer.sock'))
    const [socket] = (await once(server, 'connection')) as [net.Socket]
    const fd = (socket as unknown as { _handle: { fd: number } })._handle.fd
    expect(addon.peerCredentials(fd)).toEqual({ pid: process.pid, uid: process.getuid!(), gid: process.getgid!() })
    socket.destroy()
    peer.destroy()
    server.close()
  })

  it('refuses a descriptor that is no socket', () => {
    expect(() => addon.peerCredentials(1_000_000)).toThrow(expect.objectContaining({ code: 'EBADF' }))
  })
})

describe('lockFile', () => {
  it('gives the lock to one process', async () => {
    const file = path.join(token.directory, 'lock')
    expect(addon.lockFile(file)).toBeGreaterThan(2)
    expect((await runEdge('lock', file)).stdout).toBe('-1')
    expect(addon.lockFile(file)).toBe(-1)
  })

  it('does not follow a symbolic link', () => {
    execFileSync('ln', ['-s', '/etc/hostname', path.join(token.directory, 'link')])
    expect(() => addon.lockFile(path.join(token.directory, 'link'))).toThrow(expect.objectContaining({ code: 'ELOOP' }))
  })
})

describe('hardenProcess', () => {
  it('forbids core files and dies with its parent', async () => {
    // The grandchild holds the write end of our pipe: it reads as ended only when both are gone.
    const parent = spawn(process.execPath, [edges, 'parent'], { stdio: ['ignore', 'pipe', 'inherit'] })
    let said = ''
    for await (const chunk of parent.stdout) {
      said += chunk
      if (said.includes('\n')) parent.kill('SIGKILL')
    }
    expect(said).toMatch(/^Max core file size +0 +0 /)
  })
})

describe('wipe', () => {
  it('zeroes bytes', () => {
    const bytes = Buffer.from('secret')
    addon.wipe(bytes)
    expect(bytes.equals(Buffer.alloc(6))).toBe(true)
    expect(() => addon.wipe('secret' as never)).toThrow(TypeError)
  })
})

const edges = fileURLToPath(new URL('edges.ts', import.meta.url))

async function runEdge(scenario: string, argument = '', env: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [edges, scenario, argument], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [stdout, stderr, [code, signal]] = await Promise.all([
    child.stdout.toArray().then(String),
    child.stderr.toArray().then(String),
    once(child, 'close'),
  ])
  return { stdout, stderr, code, signal }
}
