import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import type { Readable } from 'node:stream'
import { KMSClient, type KMSServiceException, ListKeysCommand } from '@aws-sdk/client-kms'
import { afterEach, describe, expect, it } from 'vitest'
import { createSigV4Verifier } from '../../../../src/authenticate/authenticate.ts'
import type { Principal } from '../../../../src/call.ts'
import { toGatewayError } from '../../../../src/error.ts'
import type { KeyService } from '../../../../src/keys/keys.ts'
import type { Outcome, Pipeline } from '../../../../src/pipeline.ts'
import { createKmsDoor, type KmsDoor } from '../../../../src/transport/kms/kms.ts'
import type { WireBody } from '../../../../src/transport/kms/request-body.ts'

const accessKeyId = 'AKIDEXAMPLE'
const secretAccessKey = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
const principal: Principal = {
  type: 'user',
  arn: 'arn:aws:iam::000000000000:user/alice',
  account: '000000000000',
  principalId: 'AIDAEXAMPLE',
}

const open: { door: KmsDoor; client: KMSClient }[] = []

afterEach(async () => {
  for (const { door, client } of open.splice(0)) {
    client.destroy()
    await door.close()
  }
})

/** Authenticates and parses, then answers `perform`: what a pipeline does, without keys. */
function pipelineOf(perform: (input: unknown, body: WireBody) => unknown): Pipeline {
  return async (call): Promise<Outcome> => {
    let authenticated = false
    try {
      await call.authenticate()
      authenticated = true
      return { ok: true, output: await perform(call.operation.parse(call.raw), call.raw as WireBody) }
    } catch (cause) {
      return { ok: false, error: toGatewayError(cause), authenticated }
    }
  }
}

async function start(
  perform: (input: unknown, body: WireBody) => unknown = () => ({ members: { Keys: [], Truncated: false } }),
  options: Partial<Parameters<typeof createKmsDoor>[0]> = {},
) {
  const refused: string[] = []
  const door = createKmsDoor({
    pipeline: pipelineOf(perform),
    verifier: createSigV4Verifier({
      service: 'kms',
      regions: new Set(['us-east-1']),
      now: Date.now,
      credentials: {
        find: (id) =>
          id === accessKeyId ? { accessKeyId, secret: Buffer.from(secretAccessKey), principal } : undefined,
      },
    }),
    partition: 'aws',
    keys: {} as KeyService,
    authorizer: { decide: () => ({ allowed: true, by: 'administrator', statement: 'test' }) },
    onRefused: (name) => refused.push(name),
    ...options,
  })
  const { port } = await door.listen({ host: '127.0.0.1', port: 0 })
  const client = new KMSClient({
    endpoint: `http://127.0.0.1:${port}`,
    region: 'us-east-1',
    credentials: { accessKeyId, secretAccessKey },
    maxAttempts: 1,
  })
  open.push({ door, client })
  return { door, port, client, refused }
}

/** Sends bytes as they are and gives back everything until the server ends the connection. */
async function exchange(port: number, ...chunks: (string | Buffer)[]): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  const received: Buffer[] = []
  socket.on('data', (chunk) => received.push(chunk))
  for (const chunk of chunks) socket.write(chunk)
  await once(socket, 'close')
  return Buffer.concat(received).toString()
}

function post(port: number, target: string | undefined, body: string | Buffer = '{}'): Promise<Response> {
  return fetch(`http://127.0.0.1:${port}/`, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-amz-json-1.1',
      ...(target === undefined ? {} : { 'x-amz-target': target }),
    },
    body,
  })
}

const failureOf = (run: Promise<unknown>) =>
  run.then(
    () => undefined,
    (error: KMSServiceException) => error,
  )

describe('createKmsDoor', () => {
  it('serves the SDK and sends the headers that AWS sends', async () => {
    const { client, port } = await start()
    await expect(client.send(new ListKeysCommand({}))).resolves.toMatchObject({ Keys: [], Truncated: false })
    const { headers } = await post(port, 'TrentService.ListKeys')
    expect(headers.get('content-type')).toBe('application/x-amz-json-1.1')
    expect(headers.get('x-amzn-requestid')).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4/)
    expect(headers.get('cache-control')).toBe('no-cache, no-store, must-revalidate, private')
    expect(headers.get('expires')).toBe('0')
    expect(headers.get('pragma')).toBe('no-cache')
    expect(Math.abs(Date.parse(headers.get('date') ?? '') - Date.now())).toBeLessThan(60_000)
  })

  it('sends text beyond ASCII whole', async () => {
    const KeyId = 'Schlüssel – 鍵 🔑'
    const { client } = await start(() => ({ members: { Keys: [{ KeyId, KeyArn: 'a' }], Truncated: false } }))
    const { Keys } = await client.send(new ListKeysCommand({}))
    expect(Keys?.[0]?.KeyId).toBe(KeyId)
    await expect(client.send(new ListKeysCommand({}))).resolves.toBeDefined()
  })

  it('answers nothing with an empty body', async () => {
    const { client } = await start(() => ({ members: null }))
    const output = await client.send(new ListKeysCommand({}))
    expect(output.$metadata.httpStatusCode).toBe(200)
    expect(output.Keys).toBeUndefined()
  })

  it('refuses unsigned requests in the words of AWS', async () => {
    const { port } = await start()
    const response = await post(port, 'TrentService.ListKeys')
    expect(response.status).toBe(400)
    expect(await response.json()).toEqual({
      __type: 'MissingAuthenticationTokenException',
      message: 'Missing Authentication Token',
    })
  })

  it('refuses an unknown access key and a wrong secret, each by its own name', async () => {
    const { port } = await start()
    const send = (credentials: { accessKeyId: string; secretAccessKey: string }) => {
      const client = new KMSClient({
        endpoint: `http://127.0.0.1:${port}`,
        region: 'us-east-1',
        credentials,
        maxAttempts: 1,
      })
      return failureOf(client.send(new ListKeysCommand({}))).finally(() => client.destroy())
    }
    const wrong = await send({ accessKeyId, secretAccessKey: 'wrong' })
    expect(wrong?.name).toBe('InvalidSignatureException')
    expect(wrong?.message).toMatch(/^The request signature we calculated does not match/)
    const unknown = await send({ accessKeyId: 'AKIDNOBODY', secretAccessKey })
    expect(unknown?.name).toBe('UnrecognizedClientException')
    expect(unknown?.message).toBe('The security token included in the request is invalid.')
  })

  it.each([
    undefined,
    '',
    'ListKeys',
    'TrentService.',
    'TrentService.Nonsense',
    'TrentService.toString',
    'TrentService.__proto__',
  ])('does not know the target %j', async (target) => {
    const { port } = await start()
    const response = await post(port, target)
    expect(response.status).toBe(400)
    expect(await response.text()).toBe('{"__type":"UnknownOperationException"}')
  })

  it.each([
    ['GET', '/'],
    ['PUT', '/'],
    ['DELETE', '/'],
    ['OPTIONS', '/'],
    ['PROPFIND', '/'],
    ['POST', '/keys'],
    ['POST', '//'],
    ['POST', '/%zz'],
  ])('answers %s %s with UnknownOperationException', async (method, path) => {
    const { port } = await start()
    const answer = await exchange(
      port,
      `${method} ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 404 /)
    expect(answer).toContain('{"__type":"UnknownOperationException"}')
  })

  it.each([
    ['no HTTP at all', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
    ['a broken header', 'POST / HTTP/1.1\r\nHost: a\r\nBro ken: x\r\n\r\n'],
    ['two content lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'],
    [
      'length and chunks at once',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['a broken chunk', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'],
  ])('answers %s with a modelled error and ends the connection', async (_what, bytes) => {
    const { port } = await start()
    const answer = await exchange(port, Buffer.from(bytes, 'latin1'))
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(answer).toContain('Connection: close')
    expect(answer).toMatch(/"__type":"MalformedHttpRequestException"/)
  })

  it('refuses headers beyond their limit', async () => {
    const { port, refused } = await start()
    const answer = await exchange(port, `POST / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 431 /)
    expect(answer).toContain('RequestEntityTooLargeException')
    expect(refused).toEqual(['RequestTooLarge'])
  })

  it('refuses a body beyond its limit, announced or not', async () => {
    const { port } = await start(undefined, { limits: { maxBodyBytes: 1000 } })
    const announced = await post(port, 'TrentService.ListKeys', Buffer.alloc(1001))
    expect(announced.status).toBe(413)
    expect(await announced.json()).toMatchObject({ __type: 'RequestEntityTooLargeException' })
    const chunk = `${(900).toString(16)}\r\n${'x'.repeat(900)}\r\n`
    const chunked = await exchange(
      port,
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
      chunk,
      chunk,
    )
    expect(chunked).toMatch(/^HTTP\/1\.1 413 /)
  })

  it('ends a request that never arrives in full', async () => {
    const { port } = await start(undefined, { limits: { requestTimeoutMs: 200, headersTimeoutMs: 100 } })
    const answer = await exchange(port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc')
    expect(answer).toMatch(/^HTTP\/1\.1 408 /)
    expect(answer).toContain('RequestTimeoutException')
  })

  it('serves on after a client that vanishes in the middle of a request', async () => {
    const { port, client } = await start()
    const socket = connect(port, '127.0.0.1')
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc')
    await once(socket, 'connect')
    socket.resetAndDestroy()
    await expect(client.send(new ListKeysCommand({}))).resolves.toBeDefined()
  })

  it('answers an unknown expectation and a tunnel with modelled errors', async () => {
    const { port } = await start()
    expect(await exchange(port, 'POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 417 [\s\S]*MalformedHttpRequestException/,
    )
    expect(await exchange(port, 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 405 [\s\S]*UnknownOperation/,
    )
  })

  it('finishes an answer before it refuses garbage that followed on the same connection', async () => {
    const { port } = await start()
    const first = 'POST / HTTP/1.1\r\nHost: a\r\nX-Amz-Target: TrentService.ListKeys\r\nContent-Length: 2\r\n\r\n{}'
    const answer = await exchange(port, `${first}garbage\r\n\r\n`)
    expect(answer.indexOf('MissingAuthenticationToken')).toBeGreaterThan(0)
    expect(answer.indexOf('MalformedHttpRequest')).toBeGreaterThan(answer.indexOf('MissingAuthenticationToken'))
  })

  it('refuses a content type that is none', async () => {
    const { port } = await start()
    const response = await fetch(`http://127.0.0.1:${port}/`, {
      method: 'POST',
      headers: { 'content-type': 'none' },
      body: '{}',
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ __type: 'SerializationException' })
  })

  it('hides the text of unexpected failures', async () => {
    const { client } = await start(() => {
      throw new Error('secret detail')
    })
    const error = await failureOf(client.send(new ListKeysCommand({})))
    expect(error?.name).toBe('KMSInternalException')
    expect(error?.$metadata.httpStatusCode).toBe(500)
    expect(error?.message).not.toContain('secret')
  })

  it('wipes the request body and the secrets in input and output once it has answered', async () => {
    const seen: { body?: WireBody; output?: Buffer } = {}
    const { client } = await start((_input, body) => {
      body.secrets.push(Buffer.from('input secret'))
      seen.body = body
      seen.output = Buffer.from('output secret')
      return { members: { Plaintext: seen.output, Truncated: false } }
    })
    await client.send(new ListKeysCommand({ Limit: 7 }))
    expect(seen.body?.bytes.every((byte) => byte === 0)).toBe(true)
    expect(seen.body?.bytes.length).toBeGreaterThan(0)
    expect(seen.body?.secrets.every((secret) => secret.every((byte) => byte === 0))).toBe(true)
    expect(seen.output?.every((byte) => byte === 0)).toBe(true)
  })

  it('hands a request to the protocol of the service that its credential scope names', async () => {
    const services = new Map([['sts', async () => ({ status: 200, contentType: 'text/xml', body: '<Answer/>' })]])
    const { port, client } = await start(undefined, { services })
    const response = await fetch(`http://127.0.0.1:${port}/`, {
      method: 'POST',
      headers: {
        authorization:
          'AWS4-HMAC-SHA256 Credential=A/20260701/us-east-1/sts/aws4_request, SignedHeaders=host, Signature=0',
      },
      body: 'Action=GetCallerIdentity',
    })
    expect(await response.text()).toBe('<Answer/>')
    await expect(client.send(new ListKeysCommand({}))).resolves.toBeDefined()
  })

  it('answers what is under way when it closes, and soon accepts nothing new', async () => {
    const entered = Promise.withResolvers<void>()
    const release = Promise.withResolvers<void>()
    const { door, client, port } = await start(async () => {
      entered.resolve()
      await release.promise
      return { members: { Keys: [], Truncated: false } }
    })
    const pending = client.send(new ListKeysCommand({}))
    await entered.promise
    const closed = door.close()
    const refused = () =>
      new Promise<boolean>((resolve) => {
        const socket = connect(port, '127.0.0.1', () => resolve(socket.destroy() && false))
        socket.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'ECONNREFUSED'))
      })
    await expect.poll(refused, { timeout: 10_000 }).toBe(true)
    release.resolve()
    await expect(pending).resolves.toMatchObject({ Truncated: false })
    await closed
  })

  it('listens on a descriptor that its process inherited', async () => {
    const listening = createServer()
    listening.listen(0, '127.0.0.1')
    await once(listening, 'listening')
    const { port } = listening.address() as AddressInfo
    const { fd } = (listening as unknown as { _handle: { fd: number } })._handle
    const source = (path: string) => JSON.stringify(new URL(`../../../../src/${path}`, import.meta.url).href)
    const child = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `const { createKmsDoor } = await import(${source('transport/kms/kms.ts')})
        const door = createKmsDoor({ partition: 'aws', keys: {}, authorizer: {}, verifier: {}, pipeline: async () => {} })
        await door.listen({ fd: 3 })
        process.stdout.write('listening')
        process.stdin.once('data', () => door.close().then(() => process.exit(0)))`,
      ],
      { stdio: ['pipe', 'pipe', 'inherit', fd] },
    )
    await once(child.stdout as Readable, 'data')
    listening.close()
    const response = await post(port, 'TrentService.Nonsense')
    expect(await response.text()).toBe('{"__type":"UnknownOperationException"}')
    child.stdin?.write('close')
    const [code] = await once(child, 'exit')
    expect(code).toBe(0)
  })

  it('says which address it could not have', async () => {
    const { port } = await start()
    await expect(start().then(({ door }) => door.listen({ host: '127.0.0.1', port }))).rejects.toThrow()
  })
})
