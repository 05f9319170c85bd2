/** The face of the sections: every top-level key of the configuration file. A door adds its section here and nowhere else. */
import { audit } from './audit.ts'
import { catalog } from './catalog.ts'
import { customKeyStores } from './custom-key-stores.ts'
import { accounts, partition, regions } from './identity.ts'
import { listen } from './listen.ts'
import { offload } from './offload.ts'
import { development, insecure, log, trustedProxies } from './process.ts'
import { quotas } from './quotas.ts'
import { allowImportThroughMemory, custody } from './reserved.ts'
import type { Schema, Section } from './section.ts'
import { defaultGroup, groups, tokens } from './tokens.ts'
import { xks } from './xks.ts'

export const sections = {
  partition,
  accounts,
  regions,
  listen,
  tokens,
  groups,
  defaultGroup,
  catalog,
  audit,
  quotas,
  offload,
  xks,
  customKeyStores,
  custody,
  allowImportThroughMemory,
  trustedProxies,
  development,
  insecure,
  log,
}

/** Values of all sections, by key. */
export type Sections = {
  readonly [K in keyof typeof sections]: (typeof sections)[K] extends Section<infer T> ? T : never
}

/** The schema of the whole file. */
export const fileSchema: Schema = {
  type: 'object',
  description: 'The configuration file.',
  properties: Object.fromEntries(Object.entries(sections).map(([key, { schema }]) => [key, schema])),
  required: ['tokens'],
  additionalProperties: false,
}
