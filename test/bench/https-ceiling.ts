/**
 * The HTTPS ceiling of `npm run bench:xks`: a fastify with the TLS and HTTP/2 of the XKS door that reads a signed request, hashes its body, verifies the
 * signature and answers a constant. It says `{"port"}` on standard output; its order is JSON in HSMGATE_BENCH_ORDER.
 */
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import fastify from 'fastify'
import { createSigV4Verifier } from '../../src/authenticate/authenticate.ts'
import { createCredentialStore } from '../../src/authenticate/credentials.ts'

interface Order {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
  readonly certificateFile: string
  readonly keyFile: string
  /** Body of every answer. */
  readonly answer: string
}

const order: Order = JSON.parse(process.env.HSMGATE_BENCH_ORDER as string)
const { accessKeyId, secretAccessKey, region, answer } = order
const account = '000000000000'
const credentials = createCredentialStore()
const principal = { type: 'key-store', arn: 'arn:bench', account, principalId: 'bench' } as const
credentials.put({ accessKeyId, secret: Buffer.from(secretAccessKey), principal })
const verifier = createSigV4Verifier({
  service: 'kms-xks-proxy',
  regions: new Set([region]),
  now: Date.now,
  credentials,
})

const app = fastify({
  logger: false,
  http2: true,
  https: { allowHTTP1: true, cert: readFileSync(order.certificateFile), key: readFileSync(order.keyFile) },
})
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
app.post('/*', async (request, reply) => {
  const { rawHeaders, url = '/' } = request.raw
  await verifier.verify({ method: request.method, rawUrl: url, rawHeaders, body: request.body as Buffer })
  return reply.header('content-type', 'application/json').send(answer)
})
await app.listen({ host: '127.0.0.1', port: 0 })
process.stdout.write(`${JSON.stringify({ port: (app.server.address() as AddressInfo).port })}\n`)
process.on('SIGTERM', () => process.exit(0))
