import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { expect, it } from 'vitest'
import { createListener } from '../../../../src/transport/kms/listener.ts'

async function ask(port: number, head: readonly string[], body = ''): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(
    `POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.1\r\n${head.join('\r\n')}\r\n\r\n${body}`,
  )
  return socket
}

async function answerOf(socket: Socket): Promise<string> {
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk) => {
    text += chunk
  })
  await once(socket, 'end')
  return text
}

it('strangers with large bodies that never arrive leave room for small requests', async () => {
  await using listener = createListener({
    answer: async ({ body }) => ({ status: 200, contentType: 'text/plain', body: `${body.length}` }),
    limits: { maxLargeBodies: 2 },
  })
  const { port } = await listener.listen({ host: '127.0.0.1', port: 0 })
  const large = 'Content-Length: 100000'
  const held = [await ask(port, [large]), await ask(port, ['Transfer-Encoding: chunked'], '1\r\nx\r\n')]
  const small = ['Content-Length: 2', 'Connection: close']
  expect(await answerOf(await ask(port, small, '{}'))).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\n2$/)
  for (const head of [large, 'Transfer-Encoding: chunked']) {
    expect(await answerOf(await ask(port, [head]))).toMatch(/^HTTP\/1\.1 400 [\s\S]*ThrottlingException/)
  }

  for (const socket of held) socket.destroy()
  const body = 'x'.repeat(100_000)
  // The server may not have noticed yet that they are gone; a refusal can cut off a body that is still being sent.
  const retry = async (): Promise<string> => {
    const answer = await answerOf(await ask(port, [large, 'Connection: close'], body)).catch(() => '')
    return answer.startsWith('HTTP/1.1 200') ? answer : retry()
  }
  expect(await retry()).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\n100000$/)
})
