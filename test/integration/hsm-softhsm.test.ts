/** The HSM layer on a real token: SoftHSM2 behind real workers. */
import { spawn } from 'node:child_process'
import { createHash, createPublicKey, randomBytes, randomUUID, verify } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { deadlineIn } from '../../src/call.ts'
import { GatewayError } from '../../src/error.ts'
import { openHsm, type SupervisedHsm } from '../../src/hsm/hsm.ts'
import type { GeneratedKey, GenerateIntent, KeySpec, KeyUsage } from '../../src/hsm/port.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

const inTime = () => deadlineIn(20_000)
const newId = () => Buffer.from(randomUUID().replaceAll('-', ''), 'hex')

interface Bench extends AsyncDisposable {
  readonly token: TestToken
  hsm: SupervisedHsm
  readonly deaths: string[]
  start(capabilitiesKnown?: (token: string, isCached: boolean) => void): Promise<SupervisedHsm>
}
const open: Bench[] = []
afterEach(async () => {
  for (const bench of open.splice(0)) await bench[Symbol.asyncDispose]()
})

async function openBench(env: (token: TestToken) => Record<string, string> = () => ({})): Promise<Bench> {
  const token = await createTestToken()
  const deaths: string[] = []
  const start: Bench['start'] = (capabilitiesKnown = () => {}) =>
    openHsm({
      tokens: [
        {
          name: 't',
          module: token.module,
          label: token.label,
          pinFile: token.pinFile,
          profile: 'softhsm',
          env: { ...token.env, ...env(token) },
          workers: 2,
          sessions: 2,
        },
      ],
      groups: [{ name: 'g', tokens: ['t'] }],
      stateDirectory: path.join(token.directory, 'state'),
      observe: {
        capabilitiesKnown,
        workerDied: (worker, reason, expected) => expected || deaths.push(`${worker.role} ${reason}`),
      },
    })
  const bench: Bench = {
    token,
    deaths,
    start,
    hsm: await start(),
    async [Symbol.asyncDispose]() {
      await bench.hsm[Symbol.asyncDispose]()
      await token[Symbol.asyncDispose]()
    },
  }
  open.push(bench)
  return bench
}

function intentOf(spec: KeySpec, usage: KeyUsage): GenerateIntent {
  return {
    group: 'g',
    spec,
    usage,
    purpose: 'kms',
    objectId: newId(),
    keyId: randomUUID(),
    number: 1,
    residence: 'token',
  }
}
const generate = (hsm: SupervisedHsm, spec: KeySpec, usage: KeyUsage): Promise<GeneratedKey> =>
  hsm.generate(intentOf(spec, usage), inTime())

/** A process that has ended but was not reaped yet counts as gone. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** Pids of ready workers; waits until there are `count`. */
async function pidsOf(hsm: SupervisedHsm, role: 'serve' | 'manage', count: number): Promise<number[]> {
  for (;;) {
    const ready = hsm.groups()[0]!.workers.filter((worker) => worker.role === role && worker.state === 'ready')
    if (ready.length >= count) return ready.map(({ pid }) => pid!)
    await hsm.random('g', 8, inTime())
  }
}

function isValid(publicKey: Uint8Array, message: Buffer, signature: Buffer): boolean {
  const key = createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' })
  return verify('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, signature)
}
const digestOf = (message: Buffer) => createHash('sha256').update(message).digest()

describe('the HSM layer on SoftHSM2', () => {
  it('signs with keys that every serve worker finds, and the signatures hold outside', async () => {
    const { hsm } = await openBench()
    await pidsOf(hsm, 'serve', 2)
    const { key, publicKey } = await generate(hsm, 'ECC_NIST_P256', 'SIGN_VERIFY')
    const message = randomBytes(100)
    const signatures = await Promise.all(
      Array.from({ length: 20 }, () => hsm.sign(key, 'ECDSA', digestOf(message), inTime())),
    )
    expect(signatures.every((signature) => isValid(publicKey!, message, signature))).toBe(true)
  })

  it('seals and opens, and says one thing about everything that is not sealed', async () => {
    const { hsm } = await openBench()
    const { key } = await generate(hsm, 'SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    const prefix = randomBytes(50)
    const context = Buffer.from('context')
    const sealed = await hsm.encrypt(key, 'SEAL', { prefix, context, data: Buffer.from('plain') }, inTime())
    expect((await hsm.decrypt(key, 'SEAL', { prefix, context, data: sealed }, inTime())).toString()).toBe('plain')
    const spoilt = Buffer.from(sealed)
    spoilt[spoilt.length - 1]! ^= 1
    for (const input of [
      { prefix, context, data: spoilt },
      { prefix, data: sealed },
      { prefix, context, data: Buffer.alloc(3) },
    ])
      await expect(hsm.decrypt(key, 'SEAL', input, inTime())).rejects.toMatchObject({ code: 'CiphertextInvalid' })
  })

  it('draws a data key in the module and seals it in one call, for keys that encrypt alone', async () => {
    const { hsm } = await openBench()
    const { key } = await generate(hsm, 'SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    const input = { prefix: randomBytes(50), context: Buffer.from('context') }
    const [one, two] = await Promise.all([
      hsm.sealRandom(key, 32, input, inTime()),
      hsm.sealRandom(key, 1024, input, inTime()),
    ])
    expect([one.plaintext.length, two.plaintext.length]).toEqual([32, 1024])
    expect(one.plaintext.equals(two.plaintext.subarray(0, 32))).toBe(false)
    for (const { plaintext, sealed } of [one, two])
      expect(await hsm.decrypt(key, 'SEAL', { ...input, data: sealed }, inTime())).toEqual(plaintext)
    const system = { ...key, purpose: 'system' } as const
    await expect(hsm.sealRandom(system, 32, input, inTime())).rejects.toMatchObject({ code: 'KeyUsageInvalid' })
    const { key: signing } = await generate(hsm, 'ECC_NIST_P256', 'SIGN_VERIFY')
    await expect(hsm.sealRandom(signing, 32, input, inTime())).rejects.toMatchObject({ code: 'KeyUsageInvalid' })
  })

  it('loses no call when each worker is killed in turn under load', async () => {
    const bench = await openBench()
    const { hsm } = bench
    const { key, publicKey } = await generate(hsm, 'ECC_NIST_P256', 'SIGN_VERIFY')
    const { key: aes } = await generate(hsm, 'SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    const message = randomBytes(100)
    let running = true
    let done = 0
    const failures: unknown[] = []
    const load = Array.from({ length: 16 }, async (_, i) => {
      while (running) {
        try {
          if (i % 2 === 0) {
            const signature = await hsm.sign(key, 'ECDSA', digestOf(message), deadlineIn(10_000))
            if (!isValid(publicKey!, message, signature)) failures.push('bad signature')
          } else {
            const sealed = await hsm.encrypt(aes, 'SEAL', { data: Buffer.from('plain') }, deadlineIn(10_000))
            const plain = await hsm.decrypt(aes, 'SEAL', { data: sealed }, deadlineIn(10_000))
            if (plain.toString() !== 'plain') failures.push('bad plaintext')
          }
          done++
        } catch (error) {
          failures.push(error instanceof GatewayError ? `${error.code} ${error.detail}` : error)
        }
      }
    })
    const killed = new Set<number>()
    for (const role of ['serve', 'serve', 'serve', 'manage'] as const) {
      const pid = (await pidsOf(hsm, role, role === 'serve' ? 2 : 1)).find((candidate) => !killed.has(candidate))!
      killed.add(pid)
      const before = done
      process.kill(pid, 'SIGKILL')
      while (done < before + 100) await hsm.random('g', 8, inTime())
    }
    await pidsOf(hsm, 'manage', 1)
    await pidsOf(hsm, 'serve', 2)
    running = false
    await Promise.all(load)
    expect(failures).toEqual([])
    expect(bench.deaths).toHaveLength(4)
    expect((await generate(hsm, 'ECC_NIST_P384', 'SIGN_VERIFY')).publicKey).not.toBeNull()
  })

  it('finds its keys again after a restart', async () => {
    const bench = await openBench()
    const { key, publicKey } = await generate(bench.hsm, 'ECC_NIST_P256', 'SIGN_VERIFY')
    await bench.hsm[Symbol.asyncDispose]()
    bench.hsm = await bench.start()
    const message = randomBytes(10)
    expect(isValid(publicKey!, message, await bench.hsm.sign(key, 'ECDSA', digestOf(message), inTime()))).toBe(true)
    expect(await bench.hsm.enumerate('g', inTime())).toMatchObject([
      { objectId: Buffer.from(key.objectId), spec: 'ECC_NIST_P256' },
    ])
  })

  it('knows what the token can do, at the second start without trying again', async () => {
    const known: boolean[] = []
    const bench = await openBench()
    expect(bench.hsm.groups()[0]).toMatchObject({
      ready: true,
      tokens: [{ trouble: undefined, serial: bench.token.serial }],
    })
    const proven = bench.hsm.capabilities('g')
    expect(proven.specs.ECC_NIST_P256).toContain('SIGN_VERIFY')
    await bench.hsm[Symbol.asyncDispose]()
    bench.hsm = await bench.start((_token, isCached) => known.push(isCached))
    expect(bench.hsm.capabilities('g')).toEqual(proven)
    expect(known[0]).toBe(true)
  })

  it('destroys an object for all workers, and again without complaint', async () => {
    const { hsm } = await openBench()
    await pidsOf(hsm, 'serve', 2)
    const { key } = await generate(hsm, 'ECC_NIST_P256', 'SIGN_VERIFY')
    await Promise.all(Array.from({ length: 8 }, () => hsm.sign(key, 'ECDSA', Buffer.alloc(32), inTime())))
    await hsm.destroy(key, inTime())
    await hsm.destroy(key, inTime())
    expect(await hsm.attributes(key, inTime())).toBeNull()
    const codes = await Promise.all(
      Array.from({ length: 8 }, () =>
        hsm.sign(key, 'ECDSA', Buffer.alloc(32), inTime()).catch((error: GatewayError) => error.code),
      ),
    )
    expect(new Set(codes)).toEqual(new Set(['KeyUnavailable']))
  })

  it('uses a session object in the worker that made it', async () => {
    const { hsm } = await openBench()
    const { key, publicKey } = await hsm.generate(
      { ...intentOf('ECC_NIST_P256', 'SIGN_VERIFY'), residence: 'session' },
      inTime(),
    )
    const message = randomBytes(10)
    expect(isValid(publicKey!, message, await hsm.sign(key, 'ECDSA', digestOf(message), inTime()))).toBe(true)
    await hsm.destroy(key, inTime())
    await expect(hsm.sign(key, 'ECDSA', digestOf(message), inTime())).rejects.toMatchObject({ code: 'KeyUnavailable' })
    expect(await hsm.enumerate('g', inTime())).toEqual([])
  })

  it('leaves no process behind when the gateway is killed', async () => {
    await using token = await createTestToken()
    const { module, label, pinFile, env } = token
    const options = {
      tokens: [{ name: 't', module, label, pinFile, env, profile: 'softhsm', workers: 2, sessions: 2 }],
      groups: [{ name: 'g', tokens: ['t'] }],
      stateDirectory: path.join(token.directory, 'state'),
    }
    const script = fileURLToPath(new URL('../support/hsm-process.ts', import.meta.url))
    const gateway = spawn(process.execPath, [script, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(gateway.stdout, 'data')) as [Buffer]
    const pids = JSON.parse(line.toString()) as number[]
    expect(pids).toHaveLength(3)
    gateway.kill('SIGKILL')
    await once(gateway, 'exit')
    await vi.waitFor(() => expect(pids.filter(isAlive)).toEqual([]), 10_000)
  })

  it('reports a missing token with its cause', async () => {
    const bench = await openBench((token) => {
      writeFileSync(path.join(token.directory, 'empty.conf'), `directories.tokendir = ${token.directory}\n`)
      return { SOFTHSM2_CONF: path.join(token.directory, 'empty.conf') }
    })
    expect(bench.hsm.groups()[0]).toMatchObject({ ready: false, tokens: [{ pinRefused: false }] })
    expect(bench.hsm.groups()[0]!.tokens[0]!.trouble).toContain('no token with label hsmgate-test')
  })
})

const spy = '/usr/lib/x86_64-linux-gnu/pkcs11-spy.so'

describe('a wrong PIN', () => {
  it.skipIf(!existsSync(spy))('reaches the module exactly once, across replacements and restarts', async () => {
    await using token = await createTestToken()
    const log = path.join(token.directory, 'calls.log')
    writeFileSync(token.pinFile, 'not-the-pin\n')
    const start = () =>
      openHsm({
        tokens: [
          {
            name: 't',
            module: spy,
            label: token.label,
            pinFile: token.pinFile,
            profile: 'softhsm',
            env: { ...token.env, PKCS11SPY: token.module, PKCS11SPY_OUTPUT: log },
            workers: 2,
            sessions: 2,
          },
        ],
        groups: [{ name: 'g', tokens: ['t'] }],
        stateDirectory: path.join(token.directory, 'state'),
      })
    const logins = () => readFileSync(log, 'utf8').match(/C_Login\b/g)?.length
    for (let restart = 0; restart < 3; restart++) {
      await using hsm = await start()
      expect(hsm.groups()[0]).toMatchObject({ ready: false, tokens: [{ pinRefused: true }] })
      expect(hsm.groups()[0]!.tokens[0]!.trouble).toContain('hsmgate token retry-login t')
      hsm.replaceWorkers('test')
      await expect(hsm.random('g', 8, deadlineIn(1000))).rejects.toMatchObject({ code: 'KeyUnavailable' })
      expect(logins()).toBe(1)
    }
    await using hsm = await start()
    await expect(hsm.retryLogin('t')).rejects.toMatchObject({ code: 'KeyUnavailable' })
    expect(logins()).toBe(2)
  })
})
