/** Sections `partition`, `accounts`, `regions`: the logical places in which keys and principals live. */
import type { Section } from './section.ts'

export const partition: Section<string> = {
  schema: {
    type: 'string',
    description: 'Partition in every ARN.',
    enum: ['aws', 'aws-us-gov', 'aws-cn'],
    default: 'aws',
  },
}

export const accounts: Section<readonly string[]> = {
  schema: {
    type: 'array',
    description: 'Account ids that this gateway serves. The first is the administrator’s.',
    items: { type: 'string', description: 'Account id.', pattern: '^[0-9]{12}$', form: '12 digits' },
    minItems: 1,
    uniqueItems: true,
    default: ['000000000000'],
  },
}

export const regions: Section<readonly string[]> = {
  schema: {
    type: 'array',
    description: 'Regions that this gateway serves; the signature’s scope picks one. The first is the default.',
    items: {
      type: 'string',
      description: 'Region name.',
      pattern: '^([a-z]+-){2,3}\\d+$',
      form: 'a Region name such as eu-west-1',
    },
    minItems: 1,
    uniqueItems: true,
    default: ['us-east-1', 'us-west-2', 'eu-west-1'],
  },
}
