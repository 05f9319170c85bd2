/**
 * How an encryption context appears among condition keys (AWS KMS Developer Guide, "kms:EncryptionContext:context-key" and
 * "kms:EncryptionContextKeys"). The only place that spells these keys: grants and conditions read what is written here.
 */

import { encryptionContextKeys, encryptionContextPrefix, foldKey } from './facts.ts'

/**
 * Adds the condition keys of an encryption context to `context`. Two keys that differ only by case become one key with several
 * values; such a context satisfies no Allow and every Deny that looks at the encryption context.
 */
export function addEncryptionContext(
  context: Map<string, string | readonly string[]>,
  pairs: Iterable<readonly [key: string, value: string]>,
): void {
  const keys: string[] = []
  const repeated = new Map<string, string[]>()
  for (const [key, value] of pairs) {
    keys.push(key)
    const name = encryptionContextPrefix + foldKey(key)
    const seen = context.get(name)
    const values = repeated.get(name)
    // Appended, not copied: a request may hold tens of thousands of spellings of one key.
    if (values !== undefined) values.push(value)
    else if (seen === undefined) context.set(name, value)
    else {
      const first = [...(typeof seen === 'string' ? [seen] : seen), value]
      repeated.set(name, first)
      context.set(name, first)
    }
  }
  if (keys.length > 0) context.set(encryptionContextKeys, Object.freeze(keys))
}
