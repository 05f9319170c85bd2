/** Custom key stores as the configuration describes them: its tokens become clusters, its files certificates, and what happens to a store a log line. */
import { readFileSync } from 'node:fs'
import type { Catalog } from './catalog/catalog.ts'
import type { Config, TokenConfig } from './config/config.ts'
import type { SupervisedHsm } from './hsm/hsm.ts'
import type { Observer } from './observe/observe.ts'
import { openCustomKeyStores } from './stores/custom-key-stores.ts'
import type { CustomKeyStores } from './stores/stores.ts'

export interface KeyStoreParts {
  readonly config: Pick<Config, 'tokens' | 'customKeyStores'>
  readonly catalog: Catalog
  readonly hsm: SupervisedHsm
  readonly sealer: {
    seal(secret: Uint8Array, context: string): Promise<Buffer>
    unseal(sealed: Uint8Array, context: string): Promise<Buffer>
  }
  readonly observer: Observer
  readonly now: () => number
  readonly sessionsOf: (token: TokenConfig) => number
  /** Settles what a crash left in the group of a store that has just been connected. */
  readonly settle: (group: string) => Promise<void>
}

export function openKeyStores(parts: KeyStoreParts): Promise<CustomKeyStores> {
  const { config, catalog, hsm, sealer, observer, now } = parts
  const { strict, timeoutMs, caFile, clientCertificateFile, clientKeyFile, ...limits } = config.customKeyStores
  const read = (file: string) => readFileSync(file, 'utf8')
  return openCustomKeyStores({
    catalog,
    hsm,
    sealer,
    now,
    opened: parts.settle,
    requestsPerSecond: limits.requestsPerSecond,
    doubleEncryption: limits.doubleEncryption,
    clusters: Object.entries(config.tokens).flatMap(([name, token]) => {
      const { clusterId, trustAnchorFile, pinFile: _, ...rest } = token
      if (clusterId === undefined) return []
      return {
        clusterId,
        token: { ...rest, name, sessions: parts.sessionsOf(token) },
        ...(trustAnchorFile === undefined ? {} : { trustAnchor: read(trustAnchorFile) }),
      }
    }),
    transport: {
      isStrict: strict,
      timeoutMs,
      ...(caFile === undefined ? {} : { ca: read(caFile) }),
      ...(clientCertificateFile === undefined || clientKeyFile === undefined
        ? {}
        : { clientCertificate: { cert: read(clientCertificateFile), key: read(clientKeyFile) } }),
    },
    events: {
      finished({ storeId, state, errorCode }) {
        const isFailed = state === 'FAILED'
        const fields = { storeId, state, ...(errorCode === null ? {} : { errorCode }) }
        observer.note(isFailed ? 'warn' : 'info', 'a custom key store changed its connection state', fields)
      },
      failed: (storeId, cause) => observer.unexpected(`custom key store ${storeId}`, cause),
    },
  })
}
