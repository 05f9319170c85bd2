/**
 * Markers of list operations. A marker names the last item handed out, so that pages stay right when items vanish in between. It is
 * opaque to callers and carries no authority: it only says where to go on inside what the caller may list anyway.
 */
import { GatewayError } from '../../error.ts'

const version = 'v1'

/** `list` binds a marker to its operation and filter. */
export function encodeMarker(list: string, after: string): string {
  return Buffer.from(JSON.stringify([version, list, after])).toString('base64url')
}

/** @throws GatewayError `MarkerInvalid` unless `encodeMarker` made it for the same list. */
export function decodeMarker(list: string, marker: string | undefined): string | undefined {
  if (marker === undefined) return undefined
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(marker, 'base64url').toString())
  } catch {
    throw new GatewayError('MarkerInvalid')
  }
  const [, , after] = Array.isArray(parts) ? parts : []
  // Encoding it again refuses other spellings of the same bytes.
  if (typeof after !== 'string' || encodeMarker(list, after) !== marker) throw new GatewayError('MarkerInvalid')
  return after
}

/** `Truncated` is always there and `NextMarker` only with it: some clients stop by the one, some by the other. */
export function pageEnd(
  list: string,
  last: string | undefined,
  more: boolean,
): { readonly Truncated: boolean; readonly NextMarker?: string } {
  return more && last !== undefined ? { Truncated: true, NextMarker: encodeMarker(list, last) } : { Truncated: false }
}
