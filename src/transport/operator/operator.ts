/**
 * The face of the operator door: commands over a Unix socket, metrics and health over HTTP. The socket carries authority, the HTTP
 * side only shows state.
 */
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import type { Config, HttpListener } from '../../config/config.ts'
import type { GatewayError } from '../../error.ts'
import { ProblemsError } from '../../problem.ts'
import { descriptorOf, listenAt } from '../descriptor.ts'
import { giveUpPath, listenOnPath } from '../unix-socket.ts'
import { type CommandSocketParts, closeApp, createCommandSocket } from './command-socket.ts'
import { describeOperatorError as describe } from './dialect.ts'
import { createStatusServer, type StatusParts } from './status.ts'

export type OperatorDoorParts = CommandSocketParts & StatusParts

export interface OperatorDoor extends AsyncDisposable {
  /**
   * Opens the socket, then HTTP if it is configured; resolves with the URL of the latter. Inherited sockets are used as they are.
   * @throws ProblemsError
   */
  listen(options: Config['listen']['operator'], inherited?: ReadonlyMap<string, number>): Promise<string | undefined>
  /** Listening sockets: `operator` and, with HTTP, `operator-http`. */
  listeners(): readonly (readonly [string, number])[]
}

export function createOperatorDoor(parts: OperatorDoorParts): OperatorDoor {
  const opened: (() => Promise<void>)[] = []
  const listeners: [string, number][] = []
  return {
    async listen({ socket, http }, inherited = new Map()) {
      const commands = createCommandSocket(parts)
      opened.push(async () => {
        await closeApp(commands)
        await giveUpPath(socket)
      })
      await commands.ready()
      const given = inherited.get('operator')
      if (given === undefined) {
        await listenOnPath(commands.server, { file: socket, mode: 0o600, option: 'listen.operator.socket' })
      } else await listenAt(commands.server, { fd: given })
      listeners.push(['operator', descriptorOf(commands.server)])
      if (!http) return undefined
      const status = createStatusServer(parts, {
        address: http.address,
        ...(http.tls && {
          tls: {
            cert: readFileSync(http.tls.certificateFile),
            key: readFileSync(http.tls.keyFile),
            ...(http.tls.clientCaFile !== undefined && { ca: readFileSync(http.tls.clientCaFile) }),
          },
        }),
      })
      opened.push(() => closeApp(status))
      try {
        const given = inherited.get('operator-http')
        if (given === undefined) await status.listen({ host: http.address, port: http.port })
        else {
          await status.ready()
          await listenAt(status.server, { fd: given })
        }
        listeners.push(['operator-http', descriptorOf(status.server)])
      } catch (cause) {
        throw listenProblem(http, cause as NodeJS.ErrnoException)
      }
      const { address, family, port } = status.server.address() as AddressInfo
      return `${http.tls ? 'https' : 'http'}://${family === 'IPv6' ? `[${address}]` : address}:${port}`
    },
    listeners: () => listeners,
    async [Symbol.asyncDispose]() {
      for (const close of opened.reverse()) await close()
    },
  }
}

/** Name and text of an error as this door words it, for the audit record. */
export function describeOperatorError(error: GatewayError): { readonly code: string; readonly text: string } {
  return describe(error)
}

function listenProblem({ address, port }: HttpListener, cause: NodeJS.ErrnoException): ProblemsError {
  const isTaken = cause.code === 'EADDRINUSE'
  const text = isTaken ? `${address}:${port} is taken by another process` : `cannot listen (${cause.code})`
  const remedy = isTaken ? 'stop that process, or choose another port' : 'choose an address of this machine'
  return new ProblemsError([{ at: 'listen.operator.http', cause: text, remedy }], { cause })
}
