/**
 * Unix sockets of the doors: bound with their mode from the first moment, replacing one that nobody listens on, and given up only when
 * nobody else listens there.
 *
 * A socket is bound under a name of its own and renamed: so the event loop library, which removes the name it bound when it closes,
 * does not take the path from under a process that inherited the socket.
 */
import { lstatSync, renameSync, unlinkSync } from 'node:fs'
import { connect, type Server } from 'node:net'
import { ProblemsError } from '../problem.ts'

/** sockaddr_un (unix(7)): 108 bytes with the terminating zero; the name while binding has one more. */
const maxPathBytes = 106
/** Those who connect at once, such as the workers of a web server after a restart; the kernel refuses (EAGAIN) whom it has no place for. */
const backlog = 4096

export interface SocketPlace {
  readonly file: string
  /** Of the socket: who may connect. */
  readonly mode: number
  /** Option of the configuration that names it. */
  readonly option: string
}

/** @throws ProblemsError when another process listens there, something else is in the way or the folder refuses. */
export async function listenOnPath(server: Server, place: SocketPlace): Promise<void> {
  const { file, mode, option } = place
  if (Buffer.byteLength(file) > maxPathBytes) {
    const cause = `${file} is longer than a socket's path may be (${maxPathBytes} bytes)`
    throw new ProblemsError([{ at: option, cause, remedy: 'choose a shorter path' }])
  }
  await removeStale(place)
  const early = `${file}~`
  if (lstatSync(early, { throwIfNoEntry: false })?.isSocket()) unlinkSync(early)
  await new Promise<void>((resolve, reject) => {
    const refuse = (cause: NodeJS.ErrnoException) => reject(bindProblem(place, cause.code, cause))
    server.once('error', refuse)
    // The socket is bound inside listen(), so nobody can connect before its mode is right.
    const mask = process.umask(0o777 & ~mode)
    try {
      server.listen({ path: early, backlog }, () => {
        server.off('error', refuse)
        resolve()
      })
    } finally {
      process.umask(mask)
    }
  })
  renameSync(early, file)
}

/** After the server is closed: removes the path, unless another process still listens on it. */
export async function giveUpPath(file: string): Promise<void> {
  if (lstatSync(file, { throwIfNoEntry: false })?.isSocket() && !(await isAlive(file))) unlinkSync(file)
}

async function removeStale(place: SocketPlace): Promise<void> {
  const { file, option } = place
  const stats = lstatSync(file, { throwIfNoEntry: false })
  if (!stats) return
  if (!stats.isSocket()) {
    const remedy = `remove it, or set ${option} to another path`
    throw new ProblemsError([{ at: file, cause: 'is in the way and is not a socket', remedy }])
  }
  if (await isAlive(file)) throw bindProblem(place, 'EADDRINUSE')
  unlinkSync(file)
}

function isAlive(file: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(file, () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', () => resolve(false))
  })
}

function bindProblem({ file, option }: SocketPlace, code: string | undefined, cause?: unknown): ProblemsError {
  const isTaken = code === 'EADDRINUSE'
  const text = isTaken ? 'another gateway listens there' : `cannot listen there (${code ?? 'unknown error'})`
  const remedy = isTaken ? `stop it, or set ${option} to another path` : 'make its folder writable'
  return new ProblemsError([{ at: file, cause: text, remedy }], { cause })
}
