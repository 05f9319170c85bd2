/**
 * Where a socket that this process inherited is bound, told without accepting anything on it: Node gives the address of a socket only to
 * the server that owns it. Reads proc(5), synchronously.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { endianness } from 'node:os'

export interface SocketAddress {
  readonly address: string
  readonly port: number
}

/** Undefined for what is no listening TCP socket. */
export function findSocketAddress(fd: number): SocketAddress | undefined {
  const inode = inodeOf(fd)
  if (inode === undefined) return undefined
  for (const table of ['tcp', 'tcp6']) {
    for (const line of readTable(`/proc/self/net/${table}`)) {
      const [, local = '', , , , , , , , found] = line.trim().split(/\s+/)
      if (found === inode) return parseAddress(local)
    }
  }
  return undefined
}

/** The name that a Unix socket was bound under; undefined for what is none. */
export function findSocketName(fd: number): string | undefined {
  const inode = inodeOf(fd)
  if (inode === undefined) return undefined
  for (const line of readTable('/proc/self/net/unix')) {
    const [, found, name] = /^\S+ \S+ \S+ \S+ \S+ \S+ +(\d+) (.+)$/.exec(line) ?? []
    if (found === inode) return name
  }
  return undefined
}

function inodeOf(fd: number): string | undefined {
  return /^socket:\[(\d+)\]$/.exec(readLink(`/proc/self/fd/${fd}`))?.[1]
}

/** Hexadecimal: an address of 4 or 16 bytes in words of the machine's order, a port. */
export function parseAddress(text: string): SocketAddress {
  const [digits = '', port = ''] = text.split(':')
  const bytes = Buffer.from(digits, 'hex')
  if (endianness() === 'LE') bytes.swap32()
  const groups = Array.from({ length: bytes.length / 2 }, (_, at) => bytes.readUInt16BE(2 * at).toString(16))
  const address =
    bytes.length === 4 ? [...bytes].join('.') : new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1)
  return { address, port: Number.parseInt(port, 16) }
}

function readLink(file: string): string {
  try {
    return readlinkSync(file)
  } catch {
    return ''
  }
}

function readTable(file: string): readonly string[] {
  try {
    return readFileSync(file, 'latin1').split('\n').slice(1)
  } catch {
    return []
  }
}
