/** Section `catalog`: where the metadata of keys and principals is kept. */
import type { Section } from './section.ts'

export interface CatalogConfig {
  readonly kind: 'sqlite'
  readonly file: string
}

export const catalog: Section<CatalogConfig> = {
  schema: {
    type: 'object',
    description: 'Durable metadata of keys, aliases, policies and principals.',
    properties: {
      kind: { type: 'string', description: 'Kind of database.', enum: ['sqlite'], default: 'sqlite' },
      file: {
        type: 'string',
        description: 'Database file, on a local disk.',
        filePath: true,
        derivedDefault: '`catalog.sqlite` in the state folder',
      },
    },
    additionalProperties: false,
    default: {},
  },
}
