/**
 * One gateway as the relay sees it: a few connections that are opened again when they end, and a memory of how it did lately. A connection
 * that the gateway takes leave of is replaced at once and lives on until its answers have come.
 */
import type { SecureContext } from 'node:tls'
import type { RelayEvents } from './events.ts'
import { type Link, type LinkTiming, openLink } from './link.ts'
import type { GatewayPlace } from './place.ts'

export interface UpstreamParts {
  readonly place: GatewayPlace
  readonly context: SecureContext
  readonly connections: number
  readonly timing: LinkTiming
  readonly version: string
  readonly events: RelayEvents
  /** Requests that wait may find room now. */
  roomMade(): void
}

export interface UpstreamCounters {
  requests: number
  signatures: number
  refused: number
  lost: number
  late: number
  connects: number
}

export interface Upstream {
  readonly name: string
  readonly counters: UpstreamCounters
  readonly isUp: boolean
  /** Since when no connection takes requests; undefined while one does. Monotonic milliseconds. */
  readonly downSinceMs: number | undefined
  readonly openLinks: number
  readonly inFlight: number
  readonly pingMs: number | undefined
  /** End of the certificate that it showed last, epoch milliseconds; undefined before it did. */
  readonly notAfter: number | undefined
  /** The least busy connection with room; one that owes an answer for long comes last. */
  pick(): Link | undefined
  isResting(nowMs: number): boolean
  /** It answered in time, whatever it answered. */
  succeeded(): void
  /** An error of its own, or no answer in time. */
  failed(nowMs: number): void
  /** Resolves when a connection takes requests, or with the reason why none did in time. */
  firstUp(timeoutMs: number): Promise<string | undefined>
  /** Sends nothing new; resolves when what is open is answered, or when the time is over. */
  close(timeoutMs: number): Promise<void>
}

const backoffFirstMs = 50
const backoffMaxMs = 1000
/** A connection that lived so long is replaced without waiting. */
const settledMs = 1000
const failuresBeforeRest = 3
const restFirstMs = 250
const restMaxMs = 5000
/** A failure that goes on is said again after so long. */
const repeatMs = 60_000

export function openUpstream(parts: UpstreamParts): Upstream {
  const { place, events } = parts
  const links = new Set<Link>()
  const waits = new Set<NodeJS.Timeout>()
  const counters: UpstreamCounters = { requests: 0, signatures: 0, refused: 0, lost: 0, late: 0, connects: 0 }
  let downSinceMs: number | undefined = performance.now()
  let isUp = false
  let isClosing = false
  let failedConnects = 0
  let saidDetail: string | undefined
  let saidMs = 0
  let failures = 0
  let restMs = restFirstMs
  let restsUntilMs = 0
  let notAfter: number | undefined
  let onUp: (() => void) | undefined
  let onEmpty: (() => void) | undefined

  for (let slot = 0; slot < parts.connections; slot++) fill()

  /** One connection of the few; whatever becomes of it, there will be another. */
  function fill(): void {
    const begunMs = performance.now()
    let openedMs: number | undefined
    let isReplaced = false
    const replace = () => {
      if (isReplaced || isClosing) return
      isReplaced = true
      const isSettled = openedMs !== undefined && performance.now() - begunMs > settledMs
      if (isSettled) fill()
      else fillLater()
    }
    const link = openLink({
      ...parts,
      opened() {
        openedMs = performance.now()
        notAfter = link.notAfter
        counters.connects++
        failedConnects = 0
        saidDetail = undefined
        noteState()
        parts.roomMade()
      },
      leaving(_, detail) {
        if (!isClosing && detail === undefined) events.gatewayLeaving(place.name)
        else if (!isClosing) events.connectionLost(place.name, detail as string)
        replace()
        noteState(detail)
      },
      closed(_, detail) {
        links.delete(link)
        if (detail !== undefined && !isClosing) {
          if (openedMs === undefined) noteFailedConnect(detail)
          else {
            events.connectionLost(place.name, detail)
            // whatever ended this one may have ended them all
            for (const other of links) other.suspect()
          }
        }
        replace()
        noteState(detail)
        if (links.size === 0) onEmpty?.()
      },
    })
    links.add(link)
  }

  function fillLater(): void {
    const ms = Math.min(backoffMaxMs, backoffFirstMs * 2 ** Math.min(failedConnects, 10)) * (0.75 + Math.random() / 2)
    const timer = setTimeout(() => {
      waits.delete(timer)
      fill()
    }, ms)
    waits.add(timer)
  }

  function noteFailedConnect(detail: string): void {
    failedConnects++
    const now = performance.now()
    if (detail === saidDetail && now - saidMs < repeatMs) return
    saidDetail = detail
    saidMs = now
    events.connectFailed(place.name, detail)
  }

  function noteState(detail = 'it is leaving'): void {
    const isUpNow = [...links].some((link) => link.isOpen)
    if (isUpNow === isUp) return
    isUp = isUpNow
    downSinceMs = isUp ? undefined : performance.now()
    if (isClosing) return
    if (isUp) {
      events.gatewayUp(place.name, notAfter as number)
      onUp?.()
    } else events.gatewayDown(place.name, detail)
  }

  const upstream: Upstream = {
    name: place.name,
    counters,
    get isUp() {
      return isUp
    },
    get downSinceMs() {
      return downSinceMs
    },
    get openLinks() {
      let count = 0
      for (const link of links) if (link.isOpen) count++
      return count
    },
    get inFlight() {
      let count = 0
      for (const link of links) count += link.inFlight
      return count
    },
    get pingMs() {
      for (const { isOpen, pingMs } of links) if (isOpen && pingMs !== undefined) return pingMs
      return undefined
    },
    get notAfter() {
      return notAfter
    },
    pick() {
      let best: Link | undefined
      for (const link of links) {
        if (!link.hasRoom) continue
        if (best === undefined || burden(link) < burden(best)) best = link
      }
      return best
    },
    isResting: (nowMs) => nowMs < restsUntilMs,
    succeeded() {
      failures = 0
      restMs = restFirstMs
      restsUntilMs = 0
    },
    failed(nowMs) {
      failures++
      if (failures < failuresBeforeRest || nowMs < restsUntilMs) return
      restsUntilMs = nowMs + restMs
      events.gatewayRests(place.name, restMs)
      restMs = Math.min(restMaxMs, restMs * 2)
    },
    firstUp(timeoutMs) {
      if (isUp) return Promise.resolve(undefined)
      return new Promise((resolve) => {
        const timer = setTimeout(() => resolve(saidDetail ?? 'no answer in time'), timeoutMs)
        onUp = () => {
          clearTimeout(timer)
          resolve(undefined)
        }
      })
    },
    async close(timeoutMs) {
      isClosing = true
      for (const timer of waits) clearTimeout(timer)
      waits.clear()
      for (const link of links) link.leave()
      if (links.size === 0) return
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          for (const link of links) link.destroy('the relay ends')
        }, timeoutMs)
        onEmpty = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    },
  }
  return upstream
}

function burden(link: Link): number {
  return link.inFlight + (link.isSuspect ? 1_000_000 : 0)
}
