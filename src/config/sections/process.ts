/** Sections that concern the process as a whole: `trustedProxies`, `development`, `insecure`, `log`. */
import { isIP } from 'node:net'
import type { Problem } from '../../problem.ts'
import type { Section } from './section.ts'

export interface LogConfig {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'
}

export const trustedProxies: Section<readonly string[]> = {
  schema: {
    type: 'array',
    description: 'Addresses or CIDR blocks of proxies whose X-Forwarded-For is believed.',
    items: { type: 'string', description: 'Address or CIDR block.' },
    uniqueItems: true,
    default: [],
  },
  check(value, at) {
    const problems: Problem[] = []
    for (const [index, block] of value.entries()) {
      const [address = '', bits, ...rest] = block.split('/')
      const family = isIP(address)
      const isPrefix = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
      if (family !== 0 && isPrefix && rest.length === 0) continue
      problems.push({
        at: `${at}[${index}]`,
        cause: 'is neither an IP address nor a CIDR block',
        remedy: 'write it like 10.0.0.0/8 or ::1',
      })
    }
    return problems
  },
}

export const development: Section<boolean> = {
  schema: {
    type: 'boolean',
    description: 'State and sockets live beside the configuration file instead of /var/lib/hsmgate and /run/hsmgate.',
    default: false,
  },
}

export const insecure: Section<boolean> = {
  schema: {
    type: 'boolean',
    description: 'Allows plain HTTP on addresses other than loopback. Logged at every start.',
    default: false,
  },
}

export const log: Section<LogConfig> = {
  schema: {
    type: 'object',
    description: 'The log, JSON lines on standard error.',
    properties: {
      level: {
        type: 'string',
        description: 'Least severe level that is written.',
        enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
        default: 'info',
      },
    },
    additionalProperties: false,
    default: {},
  },
}
