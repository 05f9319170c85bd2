import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { proveGateway } from '../../../src/cli/self-proof.ts'

type Members = Readonly<Record<string, unknown>>

let folder: string
let server: Server
let asked: string[]
/** Answers of a door that does everything right, by operation; tests put wrong ones in their place. */
let answers: Record<string, (input: Members) => readonly [status: number, body: unknown]>

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-proof-'))
  asked = []
  answers = {
    CreateKey: ({ KeySpec }) => [200, { KeyMetadata: { KeyId: `id-${KeySpec}`, KeyState: 'Enabled' } }],
    DescribeKey: ({ KeyId }) => [200, { KeyMetadata: { KeyId, KeyState: 'Enabled' } }],
    Encrypt: ({ Plaintext }) => [200, { CiphertextBlob: Plaintext }],
    Decrypt: ({ CiphertextBlob }) => [200, { Plaintext: CiphertextBlob }],
    Sign: ({ Message }) => [200, { Signature: Message }],
    Verify: () => [200, { SignatureValid: true }],
  }
  server = createServer(async (request, response) => {
    const operation = String(request.headers['x-amz-target']).split('.')[1]!
    asked.push(operation)
    const [status, body] = answers[operation]!(JSON.parse(await new Response(request as never).text()))
    response.statusCode = status
    if (body === undefined) response.destroy()
    else response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
})

afterEach(async () => {
  server.closeAllConnections()
  server.close()
  await rm(folder, { recursive: true, force: true })
})

const stateFile = () => path.join(folder, 'self-test.json')
const secretAccessKey = 'a-secret-that-nobody-must-see'
const prove = (host = '127.0.0.1') =>
  proveGateway({
    endpoint: `http://${host}:${(server.address() as AddressInfo).port}`,
    credentials: { accessKeyId: 'AKIAEXAMPLE', secretAccessKey, region: 'us-east-1' },
    stateFile: stateFile(),
  })

describe('proveGateway', () => {
  it('makes its keys once and remembers them', async () => {
    expect((await prove()).steps).toEqual([
      'create symmetric key',
      'encrypt',
      'decrypt',
      'create signing key',
      'sign',
      'verify',
    ])
    expect(JSON.parse(await readFile(stateFile(), 'utf8'))).toEqual({
      symmetric: 'id-SYMMETRIC_DEFAULT',
      signing: 'id-ECC_NIST_P256',
    })
    expect((await prove()).steps).toEqual(['encrypt', 'decrypt', 'sign', 'verify'])
    expect(asked.filter((operation) => operation === 'CreateKey')).toHaveLength(2)
  })

  it('reaches a door that is bound to every address by loopback', async () => {
    expect((await prove('0.0.0.0')).steps).toHaveLength(6)
  })

  it.each([
    ['is gone', [400, { __type: 'NotFoundException', message: 'none' }]],
    ['is disabled', [200, { KeyMetadata: { KeyState: 'Disabled' } }]],
    ['is about to be deleted', [200, { KeyMetadata: { KeyState: 'PendingDeletion' } }]],
  ] as const)('makes another key where the remembered one %s', async (_name, answer) => {
    await prove()
    answers.DescribeKey = () => answer
    expect((await prove()).steps).toContain('create signing key')
  })

  it.each(['', 'garbage', '[]', 'null', '{"symmetric":7,"signing":"../x"}'])(
    'starts afresh from a memory of %j',
    async (text) => {
      await writeFile(stateFile(), text)
      expect((await prove()).steps).toHaveLength(6)
    },
  )

  it('remembers the key that it made although the proof failed later', async () => {
    answers.Decrypt = () => [400, { __type: 'InvalidCiphertextException' }]
    await expect(prove()).rejects.toThrow()
    expect(JSON.parse(await readFile(stateFile(), 'utf8'))).toEqual({ symmetric: 'id-SYMMETRIC_DEFAULT' })
  })

  it.each([
    [
      'CreateKey',
      [400, { __type: 'com.x#AccessDeniedException', message: 'no' }],
      'create symmetric key',
      'AccessDeniedException: CreateKey was refused: no',
    ],
    [
      'Decrypt',
      [200, { Plaintext: 'b3RoZXI=' }],
      'encrypt and decrypt',
      'Decrypt answered another plaintext than was encrypted',
    ],
    [
      'Encrypt',
      [500, { __type: 'KMSInternalException' }],
      'encrypt and decrypt',
      'KMSInternalException: Encrypt was refused',
    ],
    [
      'Verify',
      [200, { SignatureValid: false }],
      'sign and verify',
      'Verify did not accept the signature that Sign made',
    ],
    ['Sign', [502, '<html>'], 'sign and verify', 'Sign was answered with status 502 and without JSON'],
    ['Sign', [200, undefined], 'sign and verify', 'socket hang up'],
  ] as const)('fails when %s answers %j, and says what failed', async (operation, answer, step, cause) => {
    answers[operation] = () => answer
    const failure = await prove().catch((error) => error)
    expect(failure).toMatchObject({ problems: [{ at: `self-test, ${step}`, cause }] })
    expect(JSON.stringify(failure)).not.toContain(secretAccessKey)
  })
})
