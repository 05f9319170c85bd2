/** Sections of what is built later: `custody` accepts only what means "as today", so that no option is accepted and ignored. */
import type { Section } from './section.ts'

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
