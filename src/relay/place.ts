/** Where a gateway is, and what its certificate must say. Pure. */
import type { Problem } from '../problem.ts'

export interface GatewayPlace {
  /** As the operator wrote it; what logs call it. */
  readonly name: string
  readonly host: string
  readonly port: number
  /** DNS name or IP address that the gateway's certificate must hold. */
  readonly serverName: string
}

export interface WrittenPlace {
  readonly address: string
  readonly serverName?: string
}

/** `host:port`, `[IPv6]:port`. What is wrong goes to `problems`. */
export function parsePlace({ address, serverName }: WrittenPlace, at: string, problems: Problem[]): GatewayPlace {
  const [, bracketed, plain, digits] = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})$/.exec(address) ?? []
  const host = bracketed ?? plain ?? ''
  const port = Number(digits)
  if (host === '' || !(port >= 1 && port <= 65_535)) {
    const remedy = 'use host:port, or [address]:port for IPv6'
    problems.push({ at, cause: 'is no address of a gateway', remedy })
  }
  return Object.freeze({ name: address, host, port, serverName: serverName ?? host })
}
