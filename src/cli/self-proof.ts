/**
 * The gateway proves itself through its own KMS door, as any client would: signed requests over HTTP on this machine. The keys of the
 * first proof are remembered and used again, so that starts don't pile keys up.
 */
import { randomBytes } from 'node:crypto'
import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { signRequest } from '../authenticate/sign-request.ts'
import { ProblemsError } from '../problem.ts'
import type { Credentials } from './credentials-file.ts'
import { findText, replaceFile } from './files.ts'

export interface ProofParts {
  /** URL of the KMS door. */
  readonly endpoint: string
  /** PEM of the certificate that the door must show, when it speaks TLS. */
  readonly certificate?: string
  readonly credentials: Credentials
  /** Where the ids of the proof's keys are kept. */
  readonly stateFile: string
}

export interface Proof {
  /** What was done, in words. */
  readonly steps: readonly string[]
  readonly elapsedMs: number
}

type Members = Readonly<Record<string, unknown>>
type Ask = (operation: string, members: Members) => Promise<Members>

const description = 'hsmgate self-test'
const answerTimeoutMs = 60_000
const maxAnswerBytes = 1024 * 1024

/** One key of the proof: what it is made with, and what it has to do. */
interface Trial {
  readonly name: string
  readonly make: Members
  readonly steps: readonly string[]
  use(ask: Ask, keyId: string): Promise<void>
}

const trials: readonly Trial[] = [
  {
    name: 'symmetric',
    make: { KeySpec: 'SYMMETRIC_DEFAULT' },
    steps: ['encrypt', 'decrypt'],
    async use(ask, keyId) {
      const plaintext = randomBytes(32).toString('base64')
      const context = { EncryptionContext: { purpose: description } }
      const { CiphertextBlob } = await ask('Encrypt', { KeyId: keyId, Plaintext: plaintext, ...context })
      const { Plaintext } = await ask('Decrypt', { KeyId: keyId, CiphertextBlob, ...context })
      if (Plaintext !== plaintext) throw new Error('Decrypt answered another plaintext than was encrypted')
    },
  },
  {
    name: 'signing',
    make: { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' },
    steps: ['sign', 'verify'],
    async use(ask, keyId) {
      const message = { KeyId: keyId, Message: randomBytes(32).toString('base64'), SigningAlgorithm: 'ECDSA_SHA_256' }
      const { Signature } = await ask('Sign', message)
      const { SignatureValid } = await ask('Verify', { ...message, Signature })
      if (SignatureValid !== true) throw new Error('Verify did not accept the signature that Sign made')
    },
  },
]

/** @throws ProblemsError naming the step that failed. */
export async function proveGateway(parts: ProofParts): Promise<Proof> {
  const started = performance.now()
  const ask = createClient(parts)
  const keyIds = { ...(await loadKeyIds(parts.stateFile)) }
  const steps: string[] = []
  for (const trial of trials) {
    const known = keyIds[trial.name]
    let keyId = known !== undefined && (await isUsable(ask, known)) ? known : undefined
    if (keyId === undefined) {
      steps.push(`create ${trial.name} key`)
      keyId = await perform(steps.at(-1)!, () => makeKey(ask, trial))
      keyIds[trial.name] = keyId
      await replaceFile(parts.stateFile, `${JSON.stringify(keyIds, null, 2)}\n`)
    }
    await perform(trial.steps.join(' and '), () => trial.use(ask, keyId))
    steps.push(...trial.steps)
  }
  return { steps, elapsedMs: performance.now() - started }
}

async function makeKey(ask: Ask, { make }: Trial): Promise<string> {
  const tags = [{ TagKey: 'hsmgate', TagValue: 'self-test' }]
  const { KeyMetadata } = await ask('CreateKey', { ...make, Description: description, Tags: tags })
  return String((KeyMetadata as Members).KeyId)
}

/** A remembered key may be gone (another catalog), disabled or about to be deleted: then it is no longer the proof's. */
async function isUsable(ask: Ask, keyId: string): Promise<boolean> {
  try {
    const { KeyMetadata } = await ask('DescribeKey', { KeyId: keyId })
    return (KeyMetadata as Members).KeyState === 'Enabled'
  } catch (cause) {
    if (cause instanceof RefusedError && cause.name === 'NotFoundException') return false
    throw failed('describe key', cause)
  }
}

async function perform<T>(step: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    throw failed(step, cause)
  }
}

function failed(step: string, cause: unknown): ProblemsError {
  const { name, message, code } = cause as NodeJS.ErrnoException
  const text = cause instanceof RefusedError ? `${name}: ${message}` : message || (code ?? name)
  const remedy = 'the log of the gateway says more; its keys were not touched'
  return new ProblemsError([{ at: `self-test, ${step}`, cause: text, remedy }], { cause })
}

/** An answer with an error; `name` is the API's. */
class RefusedError extends Error {
  constructor(operation: string, name: string, text: string) {
    super(`${operation} was refused${text === '' ? '' : `: ${text}`}`)
    this.name = name
  }
}

async function loadKeyIds(file: string): Promise<Readonly<Record<string, string>>> {
  try {
    const value: unknown = JSON.parse((await findText(file)) ?? '{}')
    const entries = typeof value === 'object' && value !== null ? Object.entries(value) : []
    return Object.fromEntries(entries.filter(([, id]) => typeof id === 'string' && /^[\w-]{1,64}$/.test(id)))
  } catch (cause) {
    if (cause instanceof SyntaxError) return {}
    throw cause
  }
}

function createClient({ endpoint, certificate, credentials }: ProofParts): Ask {
  const url = new URL(endpoint)
  // A door that is bound to every address is reached by loopback.
  const hostname = url.hostname === '0.0.0.0' ? '127.0.0.1' : url.hostname === '[::]' ? '[::1]' : url.hostname
  const host = `${hostname}:${url.port}`
  const { accessKeyId, secretAccessKey, region } = credentials

  return async (operation, members) => {
    const body = Buffer.from(JSON.stringify(members))
    const secret = Buffer.from(secretAccessKey)
    const headers = signRequest(
      {
        method: 'POST',
        target: '/',
        headers: { host, 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `TrentService.${operation}` },
        body,
      },
      { accessKeyId, secret, region, service: 'kms' },
      Date.now(),
    )
    secret.fill(0)
    const { status, text } = await post(new URL(`${url.protocol}//${host}/`), headers, body, certificate)
    const answer = parseAnswer(operation, status, text)
    if (status === 200) return answer
    const name = String(answer.__type ?? `status ${status}`)
      .split('#')
      .at(-1)!
    throw new RefusedError(operation, name, String(answer.message ?? answer.Message ?? ''))
  }
}

function parseAnswer(operation: string, status: number, text: string): Members {
  try {
    return JSON.parse(text) as Members
  } catch (cause) {
    throw new Error(`${operation} was answered with status ${status} and without JSON`, { cause })
  }
}

function post(
  url: URL,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
  certificate: string | undefined,
): Promise<{ readonly status: number; readonly text: string }> {
  const options = {
    method: 'POST',
    headers: { ...headers, 'content-length': String(body.length), connection: 'close' },
    agent: false,
    signal: AbortSignal.timeout(answerTimeoutMs),
    // The door is known by its very certificate; the names in it are those of its clients.
    ...(certificate === undefined
      ? {}
      : { ca: certificate, allowPartialTrustChain: true, checkServerIdentity: () => undefined }),
  }
  const request = url.protocol === 'https:' ? requestHttps : requestHttp
  return new Promise((resolve, reject) => {
    const asking = request(url, options, (response) => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > maxAnswerBytes) asking.destroy(new Error('the answer is longer than any should be'))
        else chunks.push(chunk)
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }))
      response.on('error', reject)
    })
    asking.on('error', reject)
    asking.end(body)
  })
}
