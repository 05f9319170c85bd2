/**
 * The process edge: command line, standard streams, exit code. Whoever runs hsmgate sees nobody else's files and leaves none that
 * others can read.
 */
import { enableCompileCache } from 'node:module'
import path from 'node:path'

process.umask(0o077)
// Halves the time to start. Beside the code, so that only who may change the code may change it; without leave to write there is none.
enableCompileCache(path.join(import.meta.dirname, '../node_modules/.cache/hsmgate'))
const { runCommandLine } = await import('./cli/command-line.ts')

// A reader or a terminal that went away (`hsmgate key list | head`) ends the output, not the gateway.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error
  })
}

async function readInput(maxBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of process.stdin) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > maxBytes) throw new RangeError(`standard input holds more than ${maxBytes} bytes`)
  }
  return Buffer.concat(chunks).toString('utf8')
}

process.exitCode = await runCommandLine(process.argv.slice(2), {
  environment: process.env,
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  readInput,
})
