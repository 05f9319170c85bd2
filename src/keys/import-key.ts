/**
 * The RSA pairs that imports are wrapped to. Each belongs to one KMS key, one size and one day (UTC): what was wrapped for one key can't be
 * imported into another, and asking again is cheap. System keys that only unwrap, condemned from the start: the rounds of deletion destroy them
 * when the last token that names them has expired.
 */
import { createHash } from 'node:crypto'
import type { Deadline } from '../call.ts'
import type { KeyEntry, KeyName } from '../catalog/catalog.ts'
import { GatewayError, isCode } from '../error.ts'
import type { KeySpec } from '../hsm/port.ts'
import { type CreationParts, createBackedKey } from './create-key.ts'
import { importTokenMs } from './import-token.ts'

export type ImportKeySpec = Extract<KeySpec, 'RSA_2048' | 'RSA_3072' | 'RSA_4096'>

const dayMs = 24 * 60 * 60_000
/** For a token issued at the end of the day, and a clock that is corrected a little. */
const graceMs = 60 * 60_000

export type ImportKeys = (key: KeyEntry, spec: ImportKeySpec, deadline: Deadline) => Promise<KeyEntry>

export function importKeyName(keyId: string): KeyName {
  return { account: 'system', region: 'system', keyId }
}

/** Finds or makes today's pair for a key. @throws GatewayError `KeyUnavailable` while another gateway makes it. */
export function createImportKeys(parts: CreationParts): ImportKeys {
  const making = new Map<string, Promise<KeyEntry>>()

  async function findOrMake(entry: KeyEntry, spec: ImportKeySpec, name: KeyName, day: number, deadline: Deadline) {
    const found = await parts.catalog.findKey(name)
    if (found !== undefined && found.key.state !== 'Creating') return found
    const plan = {
      name,
      spec,
      usage: 'WRAP_UNWRAP',
      purpose: 'system',
      origin: 'AWS_KMS',
      description: '',
      policy: '',
      tags: {},
      multiRegion: false,
      group: entry.key.group,
      deletionAt: (day + 1) * dayMs + importTokenMs + graceMs,
    } as const
    return createBackedKey(parts, plan, deadline).catch((cause) => {
      if (!isCode(cause, 'AlreadyExists')) throw cause
      throw new GatewayError('KeyUnavailable', undefined, { detail: 'another gateway makes this import key', cause })
    })
  }

  return (entry, spec, deadline) => {
    const { account, region, keyId } = entry.key
    const day = Math.floor(parts.now() / dayMs)
    const owner = createHash('sha256').update(`${account}/${region}/${keyId}/${spec}`).digest('hex').slice(0, 32)
    const name = importKeyName(`import-${owner}-${day}`)
    let made = making.get(name.keyId)
    if (made === undefined) {
      made = findOrMake(entry, spec, name, day, deadline).finally(() => making.delete(name.keyId))
      making.set(name.keyId, made)
    }
    return made
  }
}
