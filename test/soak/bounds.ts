/** How much the long tests do: in `npm test` enough to see that they work, in `npm run soak` (HSMGATE_SOAK=1) what issues and leaks need to show. */
export const isSoak = process.env.HSMGATE_SOAK === '1'

export function amount(bounded: number, full: number): number {
  return isSoak ? full : bounded
}

/** For the test around it. */
export const patience = { timeout: isSoak ? 3_600_000 : 180_000 }
