/** How many workers and sessions suit a token, from its limits and measured rates (sessions = rate x latency). Pure. */
import type { Limit, Rate, TokenFacts } from './examination.ts'

export interface SuggestedPool {
  readonly workers: number
  /** Of one worker. */
  readonly sessions: number
  readonly why: string
}

/** Two, so that one serves while the other is replaced. */
const suggestedWorkers = 2
/** Of a worker: the anchor that holds the login. Of the token: the manage worker's two, and two left for others. */
const anchorSessions = 1
const reservedSessions = 4
const sessionsMax = 256
/** A width counts as enough from this share of the best rate on. */
const enough = 0.9

/** `undefined` where nothing was measured. */
export function suggestPool(
  token: Pick<TokenFacts, 'maxSessions' | 'maxRwSessions'>,
  rates: readonly Rate[],
): SuggestedPool | undefined {
  const signing = rates.filter(({ what }) => what.endsWith(' sign'))
  const considered = signing.length > 0 ? signing : rates
  if (considered.length === 0) return undefined
  const widths = considered.map((rate) => ({ what: rate.what, ...enoughSessions(rate) }))
  const widest = widths.reduce((best, width) => (width.sessions > best.sessions ? width : best))
  const wanted = Math.max(1, Math.ceil(widest.sessions / suggestedWorkers))
  const limit = tightest(token.maxSessions, token.maxRwSessions)
  const room =
    limit === undefined ? sessionsMax : Math.floor((limit - reservedSessions) / suggestedWorkers) - anchorSessions
  const why = widest.isLast
    ? `${widest.what} was still getting faster at ${widest.sessions} sessions: try more`
    : `${widest.what} gets no faster beyond ${widest.sessions} sessions`
  if (room >= wanted) return { workers: suggestedWorkers, sessions: Math.min(wanted, sessionsMax), why }
  const limited = `the token allows ${limit} sessions`
  if (room >= 1) return { workers: suggestedWorkers, sessions: room, why: limited }
  return { workers: 1, sessions: Math.max(1, (limit ?? 0) - reservedSessions - anchorSessions), why: limited }
}

function enoughSessions({ perSecond }: Rate): { readonly sessions: number; readonly isLast: boolean } {
  const best = Math.max(...perSecond.map(({ rate }) => rate))
  const at = perSecond.findIndex(({ rate }) => rate >= best * enough)
  const last = perSecond.length - 1
  return { sessions: perSecond[at]?.sessions ?? 1, isLast: last > 0 && at === last }
}

function tightest(...limits: readonly Limit[]): number | undefined {
  const known = limits.filter((limit) => typeof limit === 'number')
  return known.length === 0 ? undefined : Math.min(...known)
}
