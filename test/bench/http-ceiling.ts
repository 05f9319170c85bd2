/**
 * The HTTP ceiling: a fastify that reads a signed request, hashes its body, verifies the signature and answers a constant. It says
 * `{"port"}` on standard output; its order is JSON in HSMGATE_BENCH_ORDER.
 */
import type { AddressInfo } from 'node:net'
import fastify from 'fastify'
import { createSigV4Verifier } from '../../src/authenticate/authenticate.ts'
import { createCredentialStore } from '../../src/authenticate/credentials.ts'

interface Order {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
  /** Body of every answer. */
  readonly answer: string
}

const { accessKeyId, secretAccessKey, region, answer }: Order = JSON.parse(process.env.HSMGATE_BENCH_ORDER as string)
const account = '000000000000'
const credentials = createCredentialStore()
const arn = `arn:aws:iam::${account}:user/bench`
const principal = { type: 'user', arn, account, principalId: 'AIDABENCH' } as const
credentials.put({ accessKeyId, secret: Buffer.from(secretAccessKey), principal })
const verifier = createSigV4Verifier({ service: 'kms', regions: new Set([region]), now: Date.now, credentials })

const app = fastify({ logger: false })
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
app.post('/', async (request, reply) => {
  const { rawHeaders, url = '/' } = request.raw
  await verifier.verify({ method: request.method, rawUrl: url, rawHeaders, body: request.body as Buffer })
  return reply.header('content-type', 'application/x-amz-json-1.1').send(answer)
})
await app.listen({ host: '127.0.0.1', port: 0 })
process.stdout.write(`${JSON.stringify({ port: (app.server.address() as AddressInfo).port })}\n`)
process.on('SIGTERM', () => process.exit(0))
