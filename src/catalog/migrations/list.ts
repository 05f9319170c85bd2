/** Every migration, oldest first. */
import { spineFirst } from './2026-11-21-spine-first.ts'
import { customKeyStores } from './2026-11-22-custom-key-stores.ts'
import { grantsOfKeys } from './2026-11-22-grants-of-keys.ts'
import { keyLife } from './2026-11-22-key-life.ts'
import { tlsOffloadBindings } from './2026-11-22-tls-offload-bindings.ts'
import { xksStores } from './2026-11-22-xks-stores.ts'
import type { Migration } from './migration.ts'

export const migrations: readonly Migration[] = [
  spineFirst,
  grantsOfKeys,
  keyLife,
  customKeyStores,
  tlsOffloadBindings,
  xksStores,
]
