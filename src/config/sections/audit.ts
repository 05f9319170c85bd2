/** Section `audit`: the journal of calls. */
import type { Section } from './section.ts'

export interface AuditConfig {
  readonly directory: string
  /** `kernel`: written before the answer leaves, on disk within 50 ms. `fsync`: on disk before the answer leaves. */
  readonly durability: 'kernel' | 'fsync'
  readonly segmentBytes: number
  readonly reserveBytes: number
  readonly alarmFreeBytes: number
  readonly checkpointRecords: number
  readonly checkpointMinutes: number
}

export const audit: Section<AuditConfig> = {
  schema: {
    type: 'object',
    description: 'The audit journal.',
    properties: {
      directory: {
        type: 'string',
        description: 'Folder of the segments.',
        filePath: true,
        derivedDefault: '`audit` in the state folder',
      },
      durability: {
        type: 'string',
        description:
          'When a call may be answered: `kernel`, when its record is written (it is on disk within 50 ms and survives a crash of the gateway); `fsync`, when it is on disk (it survives a power cut).',
        enum: ['kernel', 'fsync'],
        default: 'kernel',
      },
      segmentBytes: {
        type: 'integer',
        description: 'Size at which a new segment begins.',
        minimum: 65_536,
        default: 67_108_864,
      },
      reserveBytes: {
        type: 'integer',
        description: 'Disk space held back for records written when the disk is full. When it is spent, calls fail.',
        minimum: 0,
        maximum: 1_073_741_824,
        default: 16_777_216,
      },
      alarmFreeBytes: {
        type: 'integer',
        description: 'Free disk space below which an alarm is raised.',
        minimum: 0,
        default: 1_073_741_824,
      },
      checkpointRecords: {
        type: 'integer',
        description: 'Records after which a checkpoint is signed.',
        minimum: 1,
        default: 10_000,
      },
      checkpointMinutes: {
        type: 'integer',
        description: 'Minutes after which a checkpoint is signed when there are new records.',
        minimum: 1,
        maximum: 1440,
        default: 15,
      },
    },
    additionalProperties: false,
    default: {},
  },
}
