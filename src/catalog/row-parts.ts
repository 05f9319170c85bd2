/**
 * Binds rows to the row they belong to. Pure.
 *
 * A seal shows that a row was written by the gateway, not that it still holds: somebody who can write the file could delete the
 * policy that denies, or put back an access key that was deleted. So a key and a principal name, under their own seal, every part
 * with the revision of its last change. What remains possible is to put a key or a principal back to an older state as a whole;
 * the revision in audit checkpoints shows that.
 */
import { createHash } from 'node:crypto'
import { encodeRow } from './row-encoding.ts'
import type { AccessKeyRow, MaterialRow, PolicyRow, PrincipalPolicyRow, TagRow } from './tables.ts'

export function partsOfKey(parts: {
  readonly materials: readonly MaterialRow[]
  readonly policy: PolicyRow | null
  readonly tags: readonly TagRow[]
  /** Digest of all its grants, see grant-set.ts; null when it has none. */
  readonly grants: string | null
  /** Digest of all its TLS bindings, see binding-set.ts; null when it has none. */
  readonly tlsBindings: string | null
}): string {
  return JSON.stringify({
    materials: sorted(parts.materials.map(({ number, revision }) => [number, revision] as const)),
    policy: parts.policy?.revision ?? null,
    tags: digestOfTags(parts.tags),
    ...(parts.grants === null ? {} : { grants: parts.grants }),
    ...(parts.tlsBindings === null ? {} : { tlsBindings: parts.tlsBindings }),
  })
}

/**
 * The digests of its grants and of its TLS bindings that a key names. Unverified like the row itself; what can't be read names none and
 * fails with the row.
 */
export function digestsOfParts(parts: string): {
  readonly grants: string | null
  readonly tlsBindings: string | null
} {
  try {
    const { grants, tlsBindings } = JSON.parse(parts) as { readonly grants?: unknown; readonly tlsBindings?: unknown }
    const text = (value: unknown) => (typeof value === 'string' ? value : null)
    return { grants: text(grants), tlsBindings: text(tlsBindings) }
  } catch {
    return { grants: null, tlsBindings: null }
  }
}

export function partsOfPrincipal(parts: {
  readonly policies: readonly PrincipalPolicyRow[]
  readonly accessKeys: readonly AccessKeyRow[]
}): string {
  return JSON.stringify({
    policies: sorted(parts.policies.map(({ name, revision }) => [name, revision] as const)),
    accessKeys: sorted(parts.accessKeys.map(({ access_key_id, revision }) => [access_key_id, revision] as const)),
  })
}

/** Tags have no seals of their own, but they decide access (aws:ResourceTag). */
function digestOfTags(tags: readonly TagRow[]): string {
  const ordered = tags.toSorted((a, b) => (a.tag_key < b.tag_key ? -1 : 1))
  const values = ordered.flatMap(({ tag_key, tag_value }) => [tag_key, tag_value])
  return createHash('sha256').update(encodeRow('tags', values)).digest('base64')
}

function sorted<Part extends readonly [string | number, number]>(parts: readonly Part[]): readonly Part[] {
  return parts.toSorted(([a], [b]) => (a < b ? -1 : 1))
}
