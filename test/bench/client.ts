/** Signed KMS calls of the bench: whole requests as bytes, signed beforehand, and single calls that prepare keys. */
import { readFile, writeFile } from 'node:fs/promises'
import { signRequest } from '../../src/authenticate/sign-request.ts'

export interface Identity {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
}

/** The only profile of an AWS shared-credentials file. */
export async function loadIdentity(file: string): Promise<Identity> {
  const text = await readFile(file, 'utf8')
  const read = (name: string) => new RegExp(`^${name} *= *(.+)$`, 'm').exec(text)?.[1]?.trim() as string
  return {
    accessKeyId: read('aws_access_key_id'),
    secretAccessKey: read('aws_secret_access_key'),
    region: read('region'),
  }
}

/** Both servers get the same bytes, so the host that is signed is neither's port. */
const host = 'kms.bench.test'

function headersOf(identity: Identity, target: string, body: Buffer): Record<string, string> {
  const { accessKeyId, secretAccessKey, region } = identity
  return signRequest(
    {
      method: 'POST',
      target: '/',
      headers: {
        host,
        'content-type': 'application/x-amz-json-1.1',
        'x-amz-target': `TrentService.${target}`,
        'user-agent': 'hsmgate-bench',
      },
      body,
    },
    { accessKeyId, secret: Buffer.from(secretAccessKey), region, service: 'kms' },
    Date.now(),
  )
}

export function encodeRequest(identity: Identity, target: string, input: object): Buffer {
  const body = Buffer.from(JSON.stringify(input))
  const headers = { ...headersOf(identity, target, body), 'content-length': String(body.length) }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.concat([Buffer.from(`POST / HTTP/1.1\r\n${lines.join('')}\r\n`), body])
}

/** The file format of `load`: each request after its length. */
export async function writeRequests(file: string, requests: readonly Buffer[]): Promise<void> {
  const parts = requests.flatMap((request) => {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(request.length)
    return [length, request]
  })
  await writeFile(file, Buffer.concat(parts))
}

export type Ask = (target: string, input: object) => Promise<Record<string, string>>

/** Single calls over one connection pool. @throws Error with the answer when it is not 200. */
export function createAsk(identity: Identity, port: number): Ask {
  return async (target, input) => {
    const body = Buffer.from(JSON.stringify(input))
    const { host: _, ...headers } = headersOf({ ...identity }, target, body)
    const response = await request(port, { ...headers, host }, body)
    if (response.status !== 200) throw new Error(`${target}: ${response.status} ${response.text}`)
    return JSON.parse(response.text === '' ? '{}' : response.text)
  }
}

async function request(port: number, headers: Record<string, string>, body: Buffer) {
  const http = await import('node:http')
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const options = { host: '127.0.0.1', port, method: 'POST', path: '/', headers, agent: http.globalAgent }
    const outgoing = http.request(options, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
    })
    outgoing.on('error', reject).end(body)
  })
}
