/**
 * The face of the configuration: what the rest of the gateway sees of it. One JSON file, read by load.ts, becomes one frozen
 * `Config` with every default filled in, every path absolute and every reference between sections checked. It holds no secret,
 * only the places where secrets are.
 */
import type { Sections } from './sections/sections.ts'

export interface Config extends Sections {
  /** Absolute path of the file. */
  readonly file: string
  /** Durable state: the folder of the file in development, else /var/lib/hsmgate (or systemd's `STATE_DIRECTORY`). */
  readonly stateDirectory: string
  /** Sockets: `run` in the state folder in development, else /run/hsmgate (or systemd's `RUNTIME_DIRECTORY`). */
  readonly runDirectory: string
}

export type HttpListener = NonNullable<Config['listen']['kms']>
export type TlsConfig = NonNullable<HttpListener['tls']>
export type TokenConfig = Config['tokens'][string]
export type AuditConfig = Config['audit']

/** Whether only this machine can reach an address that a listener binds. */
export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(address)
}

/** The effective configuration as JSON, for `hsmgate check`. */
export function formatConfig(config: Config): string {
  return `${JSON.stringify(config, null, 2)}\n`
}
