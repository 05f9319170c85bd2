/** Commands that a running gateway answers, and what it tells of its own life in the log. */
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { CreateKeyCommand } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Ended, runHsmgateProcess } from '../support/hsmgate-process.ts'
import { type ServedGateway, serveGateway } from '../support/served-gateway.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

const patience = { timeout: 60_000 }
let token: TestToken
let served: ServedGateway

beforeAll(async () => {
  token = await createTestToken()
  served = await serveGateway(token, {
    config: {
      partition: 'aws-cn',
      regions: ['us-east-1'],
      insecure: true,
      // An IPv4 address in IPv6 clothes: this machine alone reaches it, but it is not one of the names for loopback.
      listen: {
        kms: { address: '127.0.0.1', port: 0 },
        operator: { http: { address: '::ffff:127.0.0.1', port: 0 } },
      },
    },
  })
}, 60_000)

afterAll(async () => {
  await served[Symbol.asyncDispose]()
  await token[Symbol.asyncDispose]()
})

const hsmgate = (...words: string[]): Promise<Ended> =>
  runHsmgateProcess([...words, '--config', path.join(served.directory, 'config.json')])

describe('hsmgate audit checkpoint', () => {
  it('exports what shows later that records are missing', patience, async () => {
    const file = path.join(token.directory, 'checkpoint.json')
    const { code, out, err } = await hsmgate('audit', 'checkpoint', '--out', file)
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(/^signed through record \d+; written to .*checkpoint\.json\n$/)
    expect(await hsmgate('audit', 'verify', '--anchor', file)).toMatchObject({ code: 0, err: '' })

    const journal = await readFile(path.join(served.directory, 'audit/00000001.jsonl'), 'utf8')
    const { sequence } = JSON.parse(await readFile(file, 'utf8')) as { sequence: number }
    const cut = path.join(token.directory, '00000001.jsonl')
    await writeFile(cut, journal.split('\n').slice(0, sequence).join('\n').concat('\n'))
    const verified = await hsmgate('audit', 'verify', '--anchor', file, cut)
    expect(verified.code).toBe(1)
    expect(verified.out).toContain('its end was cut off')
  })

  it('prints it, and says where it could not be written', patience, async () => {
    const { code, out } = await hsmgate('audit', 'checkpoint')
    expect([code, JSON.parse(out)]).toEqual([0, expect.objectContaining({ algorithm: 'ECDSA_SHA_256' })])
    const failed = await hsmgate('audit', 'checkpoint', '--out', '/nonexistent/checkpoint')
    expect(failed).toMatchObject({ code: 1, out: '' })
    expect(failed.err).toMatch(/^\/nonexistent\/checkpoint: cannot be written \(ENOENT\)\n {2}remedy: .+\n$/)
  })
})

describe('hsmgate clock', () => {
  it('shows that nothing stands against destroying keys, and lets it be confirmed', patience, async () => {
    for (const verb of ['show', 'confirm']) {
      const { code, out, err } = await hsmgate('clock', verb)
      expect([code, err]).toEqual([0, ''])
      expect(out).toMatch(/^time +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\ndestruction +allowed\n$/)
    }
  })
})

describe('hsmgate key show', () => {
  it("names the key in the gateway's own partition", patience, async () => {
    const { KeyMetadata } = await served.client().send(new CreateKeyCommand({}))
    const { out } = await hsmgate('key', 'show', KeyMetadata!.KeyId!)
    expect(out).toContain(`${KeyMetadata!.Arn}\n`)
    expect(KeyMetadata!.Arn).toMatch(/^arn:aws-cn:kms:/)
  })
})

describe('the log of a gateway', () => {
  it('tells of doors that open, of those that are open to others in clear, and of its end', patience, async () => {
    served.kill('SIGTERM')
    const { code, err } = await served.ended
    expect(code).toBe(0)
    const lines = err.split('\n').filter((line) => line.startsWith('{'))
    const told = lines.map((line) => JSON.parse(line) as { msg: string; door?: string; address?: string })
    const about = (msg: string) => told.filter((line) => line.msg.startsWith(msg))
    expect(about('door opened').map(({ door, address }) => [door, address])).toEqual([
      ['operator', path.join(served.directory, 'run/operator.sock')],
      ['operator', served.operatorEndpoint],
      ['kms', served.endpoint],
      ['offload', path.join(served.directory, 'run/sign.sock')],
    ])
    expect(about('plain HTTP beyond loopback')).toMatchObject([{ door: 'operator', address: served.operatorEndpoint }])
    expect(about('gateway started')).toHaveLength(1)
    expect(about('gateway is stopping')).toHaveLength(1)
    expect(told.at(-1)?.msg).toBe('gateway stopped')
  })
})
