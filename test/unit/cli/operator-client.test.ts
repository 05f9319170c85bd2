import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { NoGatewayError } from '../../../src/cli/failure.ts'
import { askSocket } from '../../../src/cli/operator-client.ts'
import { ProblemsError } from '../../../src/problem.ts'

let folder: string
let socket: string
let server: Server | undefined

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-client-'))
  socket = path.join(folder, 'operator.sock')
})

afterEach(async () => {
  server?.closeAllConnections()
  server?.close()
  server = undefined
  await rm(folder, { recursive: true, force: true })
})

async function serve(answer: RequestListener): Promise<void> {
  server = createServer(answer).listen(socket)
  await once(server, 'listening')
}

const ask = (question = {}, timeoutMs?: number) => askSocket(socket, 'principal-key', 'list', question, timeoutMs)

describe('askSocket', () => {
  it('posts a JSON object to the command and answers with the result', async () => {
    await serve(async (request, response) => {
      const body = await new Response(request as never).text()
      response.end(
        JSON.stringify({ saw: [request.method, request.url, request.headers['content-type'], JSON.parse(body)] }),
      )
    })
    expect(await ask({ name: 'bob', account: undefined, limit: 3 })).toEqual({
      saw: ['POST', '/v1/principal-key/list', 'application/json', { name: 'bob', limit: 3 }],
    })
  })

  it('tells that no gateway runs when the socket is missing, naming it and what to do', async () => {
    const failure = await ask().catch((error: ProblemsError) => error)
    expect(failure).toBeInstanceOf(NoGatewayError)
    expect((failure as ProblemsError).problems).toEqual([
      {
        at: socket,
        cause: 'no gateway runs here: the socket is missing',
        remedy:
          'start it (systemctl start hsmgate, or hsmgate serve; development: npm start), or name its configuration with --config; its log (journalctl -u hsmgate) says why it ended',
      },
    ])
  })

  it('tells that no gateway runs when a dead one left its socket behind', async () => {
    // A listener that is gone without closing leaves its file, as a killed process does.
    const bind = `require('net').createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, 'SIGKILL'))`
    expect(() => execFileSync(process.execPath, ['-e', bind])).toThrow()
    const failure = await ask().catch((error: ProblemsError) => error)
    expect(failure).toBeInstanceOf(NoGatewayError)
    expect(failure).toMatchObject({ problems: [{ cause: 'no gateway runs here: nobody listens on it' }] })
  })

  it('passes on what the gateway refused, with a remedy', async () => {
    await serve((_request, response) => {
      response.statusCode = 404
      response.end('{"error":{"code":"NotFound","text":"The user with name bob cannot be found."}}')
    })
    const failure = await ask().catch((error: ProblemsError) => error)
    expect(failure).not.toBeInstanceOf(NoGatewayError)
    expect(failure).toMatchObject({
      problems: [{ at: 'hsmgate principal key list', cause: 'The user with name bob cannot be found.' }],
    })
  })

  it.each([
    ['no JSON', 200, '<html>'],
    ['an error without a code', 500, '{}'],
    ['nothing', 502, ''],
  ])('fails on an answer that is %s', async (_name, status, body) => {
    await serve((_request, response) => {
      response.statusCode = status
      response.end(body)
    })
    await expect(ask()).rejects.toMatchObject({ problems: [{ cause: `the gateway answered with status ${status}` }] })
  })

  it('fails when the connection breaks in the middle of the answer', async () => {
    await serve((_request, response) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('{"users":')
      response.destroy()
    })
    await expect(ask()).rejects.toBeInstanceOf(ProblemsError)
  })

  it('does not wait for ever', async () => {
    await serve(() => {})
    await expect(ask({}, 50)).rejects.toMatchObject({ problems: [{ cause: 'the gateway did not answer in time' }] })
  })
})
