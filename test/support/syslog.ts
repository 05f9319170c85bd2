/** A syslog daemon for a test: it keeps the lines that come to a datagram socket, which Node cannot open. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

const daemon = `
import socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
print('ready', flush=True)
while True:
    print(receiver.recv(8192).decode(), flush=True)
`

export interface Syslog extends AsyncDisposable {
  /** What has come so far. */
  readonly lines: readonly string[]
}

export async function startSyslog(socketPath: string): Promise<Syslog> {
  const child = spawn('python3', ['-c', daemon, socketPath], { stdio: ['ignore', 'pipe', 'inherit'] })
  const reader = createInterface(child.stdout)
  await once(reader, 'line')
  const lines: string[] = []
  reader.on('line', (line) => lines.push(line))
  return {
    lines,
    async [Symbol.asyncDispose]() {
      const exit = once(child, 'exit')
      child.kill()
      await exit
    },
  }
}
