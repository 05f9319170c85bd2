/** The configuration of a development gateway: its file, with the ports that this run is given instead of those in it. */
import { readFileSync } from 'node:fs'
import type { Config } from '../config/config.ts'
import { loadConfig, parseConfig } from '../config/load.ts'
import { ProblemsError } from '../problem.ts'
import { requireFiles } from './effective-config.ts'
import type { Terminal } from './terminal.ts'

export interface Ports {
  readonly kmsPort?: number
  /** Default: a free one where `kmsPort` asks for one. */
  readonly xksPort?: number
  readonly operatorPort?: number
}

/** @throws ProblemsError */
export function loadDevelopmentConfig(file: string, ports: Ports, environment: Terminal['environment']): Config {
  const config = loadConfig([file], environment)
  if (!config.development) {
    const remedy = 'run it with `hsmgate serve`, or give --directory another folder'
    throw new ProblemsError([{ at: file, cause: 'is not a development configuration', remedy }])
  }
  const isPlain = [ports.kmsPort, ports.xksPort, ports.operatorPort].every((port) => port === undefined)
  return requireFiles(isPlain ? config : parseConfig(withPorts(readFileSync(file, 'utf8'), ports), file, environment))
}

interface Listen {
  kms?: object | null
  xks?: object | null
  operator?: { http?: object | null }
}

function withPorts(text: string, { kmsPort, xksPort, operatorPort }: Ports): string {
  const document = JSON.parse(text) as { listen?: Listen }
  document.listen ??= {}
  const { listen } = document
  if (kmsPort !== undefined) listen.kms = { ...listen.kms, port: kmsPort }
  const port = xksPort ?? (kmsPort === 0 ? 0 : undefined)
  if (port !== undefined && listen.xks) listen.xks = { ...listen.xks, port }
  if (operatorPort !== undefined) {
    listen.operator = { ...listen.operator, http: { ...listen.operator?.http, port: operatorPort } }
  }
  return JSON.stringify(document)
}
