/** The life of a relay in this process: open, drain on SIGINT or SIGTERM, SIGHUP for new certificates and gateways, SIGUSR1 for its counters. */
import { isDeepStrictEqual } from 'node:util'
import { loadAddon } from '../hsm/worker/addon.ts'
import { openRelayObserver, type RelayObserver } from '../observe/relay-events.ts'
import { ProblemsError } from '../problem.ts'
import { loadRelayConfig, type RelayConfig } from '../relay/config.ts'
import { type Credentials, loadCredentials } from '../relay/credentials.ts'
import { daysUntil, openRelay, type Relay, type RelayEvents } from '../relay/relay.ts'
import { takeInheritedListeners } from '../transport/inherited-listeners.ts'
import { listenForStop } from './run-gateway.ts'
import type { Terminal } from './terminal.ts'

const ownCertificate = 'the certificate of the relay'
const gatewayCertificate = 'the certificate of a gateway'
const hourMs = 3_600_000
/** Before its end a certificate is worth a warning. */
const warnDays = 21
const expiryCheckMs = 6 * hourMs
/** Options that SIGHUP takes over; all others need a restart. */
const renewable = ['gateways', 'connections', 'certificateFile', 'keyFile', 'caFile'] as const

/** Resolves when it was asked to stop and has answered what was open. @throws ProblemsError when it cannot start. */
export async function runRelay(
  terminal: Terminal,
  file: string,
  ready: (relay: Relay, credentials: Credentials) => void,
): Promise<void> {
  using signals = listenForStop(terminal, ['SIGINT', 'SIGTERM'])
  const config = loadRelayConfig(file, terminal.environment)
  const credentials = loadCredentials(config)
  const observer = openRelayObserver(config.logLevel)
  const { peerCredentials, notifyServiceManager } = loadAddon()
  try {
    const inherited = takeInheritedListeners()
    let expiries: ExpiryWatch | undefined
    const events: RelayEvents = {
      ...observer,
      gatewayUp(gateway, notAfter) {
        observer.gatewayUp(gateway, notAfter)
        noteExpiry(observer, gatewayCertificate, notAfter, { gateway })
        expiries?.plan()
      },
    }
    await using relay = await openRelay({ config, credentials, events, peerCredentials, inherited })
    const { subject, digest } = credentials
    observer.note('info', 'relay started', { subject, digest, sockets: relay.endpoints.join(' ') })
    noteExpiry(observer, ownCertificate, credentials.notAfter)
    ready(relay, credentials)
    if (terminal.environment.NOTIFY_SOCKET) notifyServiceManager(terminal.environment.NOTIFY_SOCKET, 'READY=1')

    using watch = watchExpiries(observer, relay)
    expiries = watch
    let renewal = Promise.resolve()
    const onHangUp = () => {
      renewal = renewal.then(() => renew(observer, relay, file, terminal, config)).then(watch.plan)
    }
    const report = () => observer.note('info', 'relay status', { ...relay.status(), local: observer.counts() })
    process.on('SIGHUP', onHangUp)
    process.on('SIGUSR1', report)
    const reports =
      config.reportSeconds > 0 ? setInterval(reportChanges(relay, report), config.reportSeconds * 1000) : undefined
    try {
      await signals.stop
    } finally {
      clearInterval(reports)
      process.off('SIGHUP', onHangUp)
      process.off('SIGUSR1', report)
      observer.note('info', 'relay ends: answering what is open')
    }
  } finally {
    observer.flush()
  }
}

/** Where something is wrong the relay goes on with what it has. */
async function renew(
  observer: RelayObserver,
  relay: Relay,
  file: string,
  terminal: Terminal,
  running: RelayConfig,
): Promise<void> {
  try {
    const config = loadRelayConfig(file, terminal.environment)
    const credentials = loadCredentials(config)
    const reasons = await relay.renew(config, credentials)
    if (reasons !== undefined) {
      const detail = reasons.join('; ')
      observer.note('error', 'not renewed: no gateway takes it; the relay goes on as before', { detail })
      return
    }
    const needRestart = changedOptions(running, config)
    observer.note('info', 'renewed', {
      digest: credentials.digest,
      validUntil: new Date(credentials.notAfter).toISOString(),
      ...(needRestart.length > 0 && { needRestart: needRestart.join(', ') }),
    })
    noteExpiry(observer, ownCertificate, credentials.notAfter)
  } catch (cause) {
    if (!(cause instanceof ProblemsError)) throw cause
    observer.note('error', 'not renewed; the relay goes on as before', { detail: cause.message })
  }
}

function changedOptions(running: RelayConfig, next: RelayConfig): readonly string[] {
  const keys = new Set([...Object.keys(running), ...Object.keys(next)]) as ReadonlySet<keyof RelayConfig>
  return [...keys].filter(
    (key) => !renewable.some((name) => name === key) && !isDeepStrictEqual(running[key], next[key]),
  )
}

interface ExpiryWatch extends Disposable {
  /** A certificate may be another one. */
  plan(): void
}

/** Says every few hours, and when it happens, which certificates end: the relay's own and those of gateways. */
function watchExpiries(observer: RelayObserver, relay: Relay): ExpiryWatch {
  let timer: NodeJS.Timeout | undefined
  let saidMs = performance.now()
  const plan = () => {
    clearTimeout(timer)
    const { validUntil, gateways } = relay.status()
    const ends = [validUntil, ...gateways.map((gateway) => gateway.validUntil ?? '')].map(Date.parse)
    const leftMs = ends.map((end) => end - Date.now()).filter((ms) => ms > 0)
    // timers may be a little early
    timer = setTimeout(look, Math.min(saidMs + expiryCheckMs - performance.now(), ...leftMs) + 1000).unref()
  }
  const look = () => {
    saidMs = performance.now()
    const { validUntil, gateways } = relay.status()
    noteExpiry(observer, ownCertificate, Date.parse(validUntil))
    for (const { gateway, validUntil } of gateways) {
      if (validUntil !== undefined) noteExpiry(observer, gatewayCertificate, Date.parse(validUntil), { gateway })
    }
    plan()
  }
  plan()
  return { plan, [Symbol.dispose]: () => clearTimeout(timer) }
}

function noteExpiry(observer: RelayObserver, whose: string, notAfter: number, fields: object = {}): void {
  const daysLeft = daysUntil(notAfter)
  if (daysLeft >= warnDays) return
  const validUntil = new Date(notAfter).toISOString()
  if (daysLeft < 0) observer.note('error', `${whose} has expired`, { ...fields, validUntil })
  else observer.note('warn', `${whose} expires soon`, { ...fields, validUntil, daysLeft })
}

/** An idle relay writes nothing. */
function reportChanges(relay: Relay, report: () => void): () => void {
  let said = 0
  return () => {
    const { requests } = relay.status()
    if (requests === said) return
    said = requests
    report()
  }
}
