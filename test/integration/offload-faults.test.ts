/** The signing socket when the HSM is slow, dies or has too much to do: budgets, full queues, crashes, and a gateway that stops meanwhile. */
import { createHash, randomBytes, verify } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { errorNumbers } from '../../src/transport/offload/frames.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { certificateVerify, connectHks } from '../support/hks-client.ts'
import { type BoundKey, bindKey, createTlsKey, offloadRecords } from '../support/offload.ts'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'

const message = certificateVerify('server', randomBytes(32))
/** Few enough places that a test can fill them: two sessions in all, eight calls that a worker is sent ahead, twelve signatures at one time. */
const sentAhead = 8
const maxPending = 12

async function startOn(token: ShimmedToken): Promise<TestGateway> {
  const { module, label, pinFile, env } = token
  return startGateway({
    token,
    config: {
      tokens: { softhsm: { module, label, pinFile, env, profile: 'softhsm', workers: 1, sessions: 2 } },
      offload: { maxPending, maxBudgetMs: 10_000 },
    },
  })
}

let token: ShimmedToken
let gateway: TestGateway
let key: BoundKey
beforeAll(async () => {
  token = await createShimmedToken()
  gateway = await startOn(token)
  key = await bindKey(gateway, await createTlsKey(gateway, 'ECC_NIST_P256'))
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})
beforeEach(() => token.clear())
const socket = () => gateway.gateway.endpoints.offload[0] as string
const request = () => ({ keyId: key.spkiDigest, input: message })

describe('a signature that takes too long', () => {
  it('is given up when the caller’s budget is spent, with a record that says so', async () => {
    await using client = await connectHks(socket(), { tokens: [key.token] })
    token.rules(['C_Sign delay=200'])
    const answer = await client.sign(request(), 40)
    expect(answer).toMatchObject({ ok: false, code: errorNumbers.deadline, retryable: false })
    expect(answer.micros).toBeLessThan(200_000)
    expect((await offloadRecords(gateway, key.name)).at(-1)).toMatchObject({ errorCode: 'DeadlineExceeded' })
  })

  it('never reaches the module when its budget was spent in the queue', async () => {
    await using client = await connectHks(socket(), { tokens: [key.token] })
    const input = certificateVerify('server', randomBytes(32))
    const digest = createHash('sha256').update(input).digest('hex')
    token.rules([`C_Sign input=hex:${digest} log`, 'C_Sign delay=100'])
    const open = Array.from({ length: sentAhead }, () => client.sign(request()))
    expect(await client.sign({ ...request(), input }, 20)).toMatchObject({ ok: false })
    expect((await Promise.all(open)).every(({ ok }) => ok)).toBe(true)
    expect(await client.sign(request())).toMatchObject({ ok: true })
    expect(token.hits(0)).toBe(0)
  })
})

describe('a full queue', () => {
  it('answers BUSY at once, and takes requests again as soon as there is room', async () => {
    await using client = await connectHks(socket(), { tokens: [key.token] })
    await using other = await connectHks(socket(), { tokens: [key.token] })
    token.rules(['C_Sign delay=100'])
    const open = Array.from({ length: maxPending }, () => client.sign(request()))
    await client.ping()
    const refused = await other.sign(request())
    expect(refused).toMatchObject({ ok: false, code: errorNumbers.busy, retryable: true, text: 'the queue is full' })
    expect((await Promise.all(open)).every(({ ok }) => ok)).toBe(true)
    expect(await other.sign(request())).toMatchObject({ ok: true })
    expect(
      (await offloadRecords(gateway, key.name)).filter(({ errorMessage }) => errorMessage === 'the queue is full'),
    ).toHaveLength(1)
  })
})

describe('a worker that dies while it signs', () => {
  it('costs nobody a handshake: the request is signed by the next one, with one record', async () => {
    await using client = await connectHks(socket(), { tokens: [key.token] })
    const before = (await offloadRecords(gateway, key.name)).length
    token.rules(['C_Sign to=1 scope=all crash'])
    const answer = await client.sign(request())
    expect(answer.ok && verify('sha256', message, key.publicKey, answer.signature)).toBe(true)
    expect((await offloadRecords(gateway, key.name)).length).toBe(before + 1)
  })
})

describe('a gateway that stops', () => {
  it('says GOAWAY, answers what is open, and is another instance when it is back', async () => {
    const path = socket()
    await using busy = await connectHks(path, { tokens: [key.token] })
    await using idle = await connectHks(path, { tokens: [key.token] })
    token.rules(['C_Sign delay=200'])
    const before = token.count('C_Sign')
    const open = busy.sign(request())
    await vi.waitFor(() => expect(token.count('C_Sign')).toBe(before + 1))
    const restarted = gateway.restart()
    await Promise.all([busy.goaway, idle.goaway, idle.closed])
    expect(await busy.sign(request())).toMatchObject({ ok: false, code: errorNumbers.shuttingDown, retryable: true })
    const answer = await open
    expect(answer.ok && verify('sha256', message, key.publicKey, answer.signature)).toBe(true)
    await busy.closed
    token.clear()
    await restarted
    await using again = await connectHks(socket(), { tokens: [key.token] })
    expect(again.welcome.instanceId).not.toEqual(busy.welcome.instanceId)
    expect(await again.sign(request())).toMatchObject({ ok: true })
  })
})
