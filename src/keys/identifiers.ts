/** Key ids, ARNs and alias names as the KMS API writes them: pure parsing and rendering. */
import { randomBytes, randomUUID } from 'node:crypto'

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const multiRegionPattern = /^mrk-[0-9a-f]{32}$/

export function isMultiRegionId(keyId: string): boolean {
  return keyId.startsWith('mrk-')
}

/** UUID in lower case, or `mrk-` and 32 hex digits. */
export function isKeyId(text: string): boolean {
  return uuidPattern.test(text) || multiRegionPattern.test(text)
}

export function createKeyId(multiRegion: boolean): string {
  return multiRegion ? `mrk-${randomBytes(16).toString('hex')}` : randomUUID()
}

export function renderKeyArn(partition: string, name: { account: string; region: string; keyId: string }): string {
  return `arn:${partition}:kms:${name.region}:${name.account}:key/${name.keyId}`
}

export function renderAliasArn(partition: string, alias: { account: string; region: string; name: string }): string {
  return `arn:${partition}:kms:${alias.region}:${alias.account}:${alias.name}`
}

export interface ParsedArn {
  readonly partition: string
  readonly region: string
  readonly account: string
  readonly kind: 'key' | 'alias'
  /** Key id, or alias name with its prefix. */
  readonly name: string
}

/** Undefined when the text is not a KMS key or alias ARN. */
export function parseKmsArn(text: string): ParsedArn | undefined {
  const [scheme, partition, service, region, account, ...rest] = text.split(':')
  const resource = rest.join(':')
  if (scheme !== 'arn' || service !== 'kms' || !partition || !region || !account) return undefined
  if (resource.startsWith('key/')) return { partition, region, account, kind: 'key', name: resource.slice(4) }
  if (resource.startsWith('alias/')) return { partition, region, account, kind: 'alias', name: resource }
  return undefined
}
