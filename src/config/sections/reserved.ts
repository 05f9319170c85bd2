/**
 * Sections whose doors define them when they open: `offload`, `custody`,
 * `allowImportThroughMemory`. Until then they accept only what means "as today", so that no option is accepted and ignored.
 */
import type { Section } from './section.ts'

const empty = (description: string): Section<Readonly<Record<string, never>>> => ({
  schema: { type: 'object', description, properties: {}, additionalProperties: false, default: {} },
})

export const offload = empty('TLS offload. No option yet.')
export const xks = empty('The XKS proxy. No option yet.')

export const custody: Section<'token'> = {
  schema: {
    type: 'string',
    description: 'Where new backing keys live: `token`, as objects resident in the token.',
    enum: ['token'],
    default: 'token',
  },
}

export const allowImportThroughMemory: Section<boolean> = {
  schema: {
    type: 'boolean',
    description:
      'Allows key import where the module cannot unwrap the material itself, so that it passes through memory.',
    default: false,
  },
}
