/** The provider's parsers in C against the vectors that TypeScript passes too, and under mutations with AddressSanitizer. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { buildProvider, runCodec } from '../support/provider.ts'

interface FrameVector {
  readonly name: string
  readonly direction: 'toGateway' | 'toClient'
  readonly hex: string
  readonly outcome: 'frame' | 'close' | 'refuse' | 'incomplete'
  readonly type?: string
  readonly requestId?: number
  readonly aux?: number
  // biome-ignore lint/suspicious/noExplicitAny: the fields differ by type, and the expectations below name them
  readonly fields?: any
}

interface ReferenceVector {
  readonly name: string
  readonly der: string
  readonly keyId: string
  readonly publicKey: string
  readonly endpoint?: string
  readonly token?: string
  readonly comment?: string
}

const load = (name: string) => JSON.parse(readFileSync(path.join(import.meta.dirname, '../vectors', name), 'utf8'))
const frames: readonly FrameVector[] = load('hks-frames.json')
const references: { readonly valid: readonly ReferenceVector[]; readonly invalid: readonly ReferenceVector[] } =
  load('key-reference.json')
const toClient = frames.filter(({ direction }) => direction === 'toClient')
const seed = '5'

beforeAll(buildProvider, 600_000)

async function linesOf(args: readonly string[], input: readonly string[]): Promise<readonly string[]> {
  const { status, stdout, stderr } = await runCodec(args, 'asan', `${input.join('\n')}\n`)
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return stdout.toString().split('\n').slice(0, -1)
}

function expectedLine({ outcome, type, requestId, aux, fields }: FrameVector): string {
  if (outcome !== 'frame') return outcome
  const types: Record<string, number> = { WELCOME: 2, RESULT: 4, ERROR: 5, PONG: 7, GOAWAY: 8 }
  const head = `frame ${types[type ?? '']} ${requestId} ${aux}`
  if (type === 'WELCOME') {
    return `${head} ${fields.maxBodyBytes} ${fields.maxInputBytes} ${fields.maxTokens} ${fields.maxBudgetMs}`
  }
  if (type === 'RESULT') return `${head} ${fields.signature}`
  if (type === 'ERROR') return `${head} ${fields.code} ${fields.retryable ? 1 : 0} ${fields.text}`
  return head
}

describe('frames in the provider', () => {
  it('are read from a gateway as the shared vectors say', async () => {
    const lines = await linesOf(
      ['frames'],
      toClient.map(({ hex }) => hex),
    )
    expect(toClient.length).toBeGreaterThan(20)
    expect(lines.map((line, at) => `${toClient[at]?.name}: ${line}`)).toEqual(
      toClient.map((vector) => `${vector.name}: ${expectedLine(vector)}`),
    )
  })

  it('greet a gateway as the vectors do, with the first of the two tokens there', async () => {
    const [twoTokens] = frames.filter(({ type }) => type === 'HELLO')
    const { app, pid, providerVersion, tokens } = twoTokens?.fields ?? {}
    const [hello] = await linesOf(['hello', app, String(pid), providerVersion, tokens[0]], [])
    const secondToken = `050020${tokens[1]}`
    const body = twoTokens?.hex.slice(8, -secondToken.length)
    const bytes = (twoTokens?.hex.length ?? 0) / 2 - secondToken.length / 2 - 16
    expect(hello).toBe(bytes.toString(16).padStart(8, '0') + body)
  })

  const requests = frames.filter(
    ({ type, fields, name }) => type === 'REQUEST' && fields.reported === undefined && !name.includes('nobody knows'),
  )
  it.each(requests)('ask as the vectors do: $name', async ({ hex, requestId, aux, fields }) => {
    const args = [
      requestId,
      aux,
      fields.keyId,
      fields.tokenIndex,
      fields.algorithm,
      fields.hash,
      fields.mgfHash ?? 0,
      fields.saltBytes ?? 0,
      fields.inputKind,
      fields.input,
      fields.traceId ?? '-',
      fields.newToken ?? '-',
    ]
    expect(await linesOf(['request', ...args.map(String)], [])).toEqual([hex])
  })

  it('break nothing when damaged', { timeout: 120_000 }, async () => {
    expect(
      await linesOf(
        ['fuzz', '3000', seed],
        toClient.map(({ hex }) => hex),
      ),
    ).toEqual([])
  })
})

describe('key references in the provider', () => {
  it('are read as the shared vectors say', async () => {
    const hex = (text: string | undefined) => (text === undefined ? '-' : Buffer.from(text).toString('hex'))
    const lines = await linesOf(
      ['references'],
      references.valid.map(({ der }) => der),
    )
    expect(lines).toEqual(
      references.valid.map(
        ({ keyId, publicKey, endpoint, token, comment }) =>
          `ok ${keyId} ${publicKey} ${hex(endpoint)} ${token ?? '-'} ${hex(comment)}`,
      ),
    )
  })

  it('are refused as the shared vectors say, but for key ids, which need a hash', async () => {
    const ofHash = new Set(['key id of another key', 'one bit of the public key changed'])
    const lines = await linesOf(
      ['references'],
      references.invalid.map(({ der }) => der),
    )
    const accepted = references.invalid.filter((_, at) => !lines[at]?.startsWith('refused '))
    expect(accepted.map(({ name }) => name)).toEqual([...ofHash])
  })

  it('break nothing when damaged', { timeout: 120_000 }, async () => {
    const seeds = [...references.valid, ...references.invalid].map(({ der }) => der).filter((der) => der.length < 4000)
    expect(await linesOf(['fuzz', '1500', seed], seeds)).toEqual([])
  })
})
