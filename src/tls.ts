/** Opens what belongs to keys of TLS servers: bindings in force, their administration, the relays. */
import type { TlsBindingStore } from './authenticate/tls-bindings.ts'
import type { Catalog } from './catalog/catalog.ts'
import type { KeyService } from './keys/keys.ts'
import type { Observer } from './observe/observe.ts'
import { createRelayAdministration, type RelayAdministration, type RelayAuthorityKey } from './relays.ts'
import { createTlsAdministration, type TlsAdministration } from './tls-administration.ts'

export interface TlsParts {
  readonly catalog: Catalog
  readonly keys: KeyService
  readonly store: TlsBindingStore
  readonly relayAuthority: RelayAuthorityKey
  readonly accounts: readonly string[]
  readonly partition: string
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly observer: Observer
}

/** Resolves when everything that is in force is known. */
export async function openTls(
  parts: TlsParts,
): Promise<{ readonly tls: TlsAdministration; readonly relays: RelayAdministration }> {
  const { catalog, relayAuthority, now, observer } = parts
  const tls = createTlsAdministration({
    ...parts,
    failed: (cause) => observer.unexpected('TLS bindings', cause),
  })
  const relays = createRelayAdministration({
    catalog,
    authority: relayAuthority,
    now,
    failed: (cause) => observer.unexpected('relays', cause),
  })
  const loaded = await tls.load()
  await relays.load()
  if (loaded > 0) observer.note('info', 'TLS bindings loaded', { loaded })
  return { tls, relays }
}
