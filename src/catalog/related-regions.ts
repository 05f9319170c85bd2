/**
 * Where a key's relation to keys of other Regions stands: one member of its `extra` column, under its seal. Pure.
 *
 * Records show it as `related`, apart from the open part, so that whoever rewrites the open part can't lose it: what it says decides
 * whether an object in the module may be destroyed.
 */
import type { KeyRecord, RelatedRegions } from './catalog.ts'
import type { KeyRow } from './tables.ts'

type Extra = KeyRecord['extra']

export function decodeExtra(row: KeyRow): { readonly extra: Extra; readonly related?: RelatedRegions } {
  const { related, ...extra } = JSON.parse(row.extra) as { related?: RelatedRegions } & Record<string, unknown>
  if (row.multi_region !== 1) return { extra }
  return { extra, related: related ?? { primary: row.region, regions: [row.region] } }
}

export function encodeExtra(extra: Extra, related: RelatedRegions | undefined): string {
  return JSON.stringify(related === undefined ? extra : { ...extra, related })
}

/** The same row when nothing changes. */
export function withRelated(row: KeyRow, related: RelatedRegions): KeyRow {
  const extra = encodeExtra(decodeExtra(row).extra, related)
  return extra === row.extra ? row : { ...row, extra }
}
