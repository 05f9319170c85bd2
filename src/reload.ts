/**
 * What SIGHUP changes in a gateway that runs. A new frozen snapshot of the configuration takes the place of the old one as far as its parts can
 * follow: request rates, the log level, trusted proxies, certificates of listeners, modules and PINs. The rest stays as it was, and is named
 * again at every reload until a new process uses it. Synchronous, so that no call sees half of a snapshot.
 */
import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import type { Config, TlsConfig, TokenConfig } from './config/config.ts'
import type { Problem } from './problem.ts'

export interface ReloadParts {
  readonly quotas: { configure(limits: Config['quotas'] & { readonly enabled: boolean }): void }
  readonly setLogLevel: (level: Config['log']['level']) => void
  readonly setTrustedProxies: (entries: readonly string[]) => void
  /** Listeners with TLS, where they are open. Connections that are open keep what they began with. */
  readonly listeners: Readonly<
    Partial<
      Record<
        TlsListener,
        {
          /** @throws Error when OpenSSL refuses them; the old ones stay. */
          setCertificates(tls: TlsFiles, from: TlsConfig): void
        }
      >
    >
  >
  /** Tokens whose configuration changed, by name; all workers are replaced afterwards. */
  readonly setTokens: (tokens: Readonly<Record<string, TokenConfig>>) => void
  readonly replaceWorkers: () => void
}

type TlsListener = 'kms' | 'relay' | 'xks'

export interface TlsFiles {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca?: Buffer
}

export interface Reloaded {
  /** The configuration in use from now on. */
  readonly config: Config
  /** Changed in the file and not in use, as paths. */
  readonly needsRestart: readonly string[]
  /** What was to change and could not. */
  readonly problems: readonly Problem[]
}

/** Which token it is, and how many workers it has, belongs to the process; the rest is for the next workers. */
const boundFields: ReadonlySet<string> = new Set(['label', 'serial', 'workers', 'clusterId'])

export function isLimited({ quotas, development }: Config): boolean {
  return quotas.enabled ?? !development
}

/** @throws the system error when a file can't be read. */
export function readTlsFiles(tls: TlsConfig): TlsFiles {
  return {
    cert: readFileSync(tls.certificateFile),
    key: readFileSync(tls.keyFile),
    ...(tls.clientCaFile !== undefined && { ca: readFileSync(tls.clientCaFile) }),
  }
}

export function reload(running: Config, next: Config, parts: ReloadParts): Reloaded {
  const problems: Problem[] = []
  const listeners = {
    kms: withCertificates('kms', running.listen.kms, next.listen.kms, parts, problems),
    relay: withCertificates('relay', running.listen.relay, next.listen.relay, parts, problems),
    xks: withCertificates('xks', running.listen.xks, next.listen.xks, parts, problems),
  }
  const tokens = mergeTokens(running.tokens, next.tokens)
  const { quotas, log, trustedProxies } = next
  const config: Config = Object.freeze({
    ...running,
    quotas,
    log,
    trustedProxies,
    tokens,
    listen: Object.freeze({ ...running.listen, ...listeners }),
  })
  parts.quotas.configure({ ...quotas, enabled: isLimited(config) })
  parts.setLogLevel(log.level)
  parts.setTrustedProxies(trustedProxies)
  parts.setTokens(tokens)
  // Module and PIN files are read by workers: new ones see what is there now.
  parts.replaceWorkers()
  return { config, needsRestart: changedPaths(config, next), problems }
}

/** A listener with the certificates that are in the files now, renewed ones under the same names included. */
function withCertificates<L extends { readonly tls?: TlsConfig }>(
  name: TlsListener,
  running: L | null,
  next: L | null,
  { listeners: { [name]: listener } }: ReloadParts,
  problems: Problem[],
): L | null {
  if (!running?.tls || !next?.tls || listener === undefined) return running
  // whether clients are asked for certificates belongs to the socket, and whose relays are believed to the door
  if ((running.tls.clientCaFile === undefined) !== (next.tls.clientCaFile === undefined)) return running
  try {
    listener.setCertificates(readTlsFiles(next.tls), next.tls)
    return Object.freeze({ ...running, tls: next.tls })
  } catch (cause) {
    problems.push({
      at: `listen.${name}.tls`,
      cause: `the certificates cannot be used (${(cause as Error).message}); the old ones stay`,
      remedy: 'correct the files, then send SIGHUP again',
    })
    return running
  }
}

function mergeTokens(running: Config['tokens'], next: Config['tokens']): Config['tokens'] {
  const merged = Object.entries(running).map(([name, token]) => {
    const wanted = next[name]
    if (wanted === undefined) return [name, token] as const
    const bound = Object.entries(token).filter(([field]) => boundFields.has(field))
    const free = Object.entries(wanted).filter(([field]) => !boundFields.has(field))
    return [name, Object.freeze(Object.fromEntries([...bound, ...free])) as TokenConfig] as const
  })
  return Object.freeze(Object.fromEntries(merged))
}

/** Paths of what differs: sections, and within listeners and tokens their members. */
function changedPaths(running: Config, next: Config): readonly string[] {
  const keys = new Set([...Object.keys(running), ...Object.keys(next)]) as ReadonlySet<keyof Config>
  return [...keys].flatMap((key) => {
    if (isDeepStrictEqual(running[key], next[key])) return []
    return key === 'listen' || key === 'tokens' ? changedMembers(key, running[key], next[key]) : [key]
  })
}

function changedMembers(section: string, running: object, next: object): readonly string[] {
  const [before, after] = [Object.entries(running), Object.entries(next)].map((entries) => new Map(entries))
  const names = new Set([...(before?.keys() ?? []), ...(after?.keys() ?? [])])
  return [...names]
    .filter((name) => !isDeepStrictEqual(before?.get(name), after?.get(name)))
    .map((name) => `${section}.${name}`)
}
