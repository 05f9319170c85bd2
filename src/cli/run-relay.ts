/** The life of a relay in this process: open, drain on SIGINT or SIGTERM, SIGHUP for new certificates and gateways, SIGUSR1 for its counters. */
import { isDeepStrictEqual } from 'node:util'
import { loadAddon } from '../hsm/worker/addon.ts'
import { openRelayObserver, type RelayObserver } from '../observe/relay-events.ts'
import { ProblemsError } from '../problem.ts'
import { loadRelayConfig, type RelayConfig } from '../relay/config.ts'
import { type Credentials, loadCredentials } from '../relay/credentials.ts'
import { openRelay, type Relay } from '../relay/relay.ts'
import { takeInheritedListeners } from '../transport/inherited-listeners.ts'
import { listenForStop } from './run-gateway.ts'
import type { Terminal } from './terminal.ts'

const dayMs = 86_400_000
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
  let credentials = loadCredentials(config)
  const observer = openRelayObserver(config.logLevel)
  const { peerCredentials, notifyServiceManager } = loadAddon()
  try {
    const inherited = takeInheritedListeners()
    await using relay = await openRelay({ config, credentials, events: observer, peerCredentials, inherited })
    const { subject, digest } = credentials
    observer.note('info', 'relay started', { subject, digest, sockets: relay.endpoints.join(' ') })
    noteExpiry(observer, credentials)
    ready(relay, credentials)
    if (terminal.environment.NOTIFY_SOCKET) notifyServiceManager(terminal.environment.NOTIFY_SOCKET, 'READY=1')

    let renewal = Promise.resolve()
    const onHangUp = () => {
      renewal = renewal.then(async () => {
        credentials = (await renew(observer, relay, file, terminal, config)) ?? credentials
      })
    }
    const report = () => observer.note('info', 'relay status', { ...relay.status(), local: observer.counts() })
    process.on('SIGHUP', onHangUp)
    process.on('SIGUSR1', report)
    const timers = [setInterval(() => noteExpiry(observer, credentials), expiryCheckMs)]
    if (config.reportSeconds > 0) timers.push(setInterval(reportChanges(relay, report), config.reportSeconds * 1000))
    try {
      await signals.stop
    } finally {
      for (const timer of timers) clearInterval(timer)
      process.off('SIGHUP', onHangUp)
      process.off('SIGUSR1', report)
      observer.note('info', 'relay ends: answering what is open')
    }
  } finally {
    observer.flush()
  }
}

/** The new credentials, or undefined: the relay then goes on with what it has. */
async function renew(
  observer: RelayObserver,
  relay: Relay,
  file: string,
  terminal: Terminal,
  running: RelayConfig,
): Promise<Credentials | undefined> {
  try {
    const config = loadRelayConfig(file, terminal.environment)
    const credentials = loadCredentials(config)
    const reasons = await relay.renew(config, credentials)
    if (reasons !== undefined) {
      const detail = reasons.join('; ')
      observer.note('error', 'not renewed: no gateway takes it; the relay goes on as before', { detail })
      return undefined
    }
    const needRestart = changedOptions(running, config)
    observer.note('info', 'renewed', {
      digest: credentials.digest,
      validUntil: new Date(credentials.notAfter).toISOString(),
      ...(needRestart.length > 0 && { needRestart: needRestart.join(', ') }),
    })
    noteExpiry(observer, credentials)
    return credentials
  } catch (cause) {
    if (!(cause instanceof ProblemsError)) throw cause
    observer.note('error', 'not renewed; the relay goes on as before', { detail: cause.message })
    return undefined
  }
}

function changedOptions(running: RelayConfig, next: RelayConfig): readonly string[] {
  const keys = new Set([...Object.keys(running), ...Object.keys(next)]) as ReadonlySet<keyof RelayConfig>
  return [...keys].filter(
    (key) => !renewable.some((name) => name === key) && !isDeepStrictEqual(running[key], next[key]),
  )
}

function noteExpiry(observer: RelayObserver, { notAfter }: Credentials): void {
  const daysLeft = Math.floor((notAfter - Date.now()) / dayMs)
  if (daysLeft >= warnDays) return
  const validUntil = new Date(notAfter).toISOString()
  if (daysLeft < 0) observer.note('error', 'the certificate of the relay has expired', { validUntil })
  else observer.note('warn', 'the certificate of the relay expires soon', { validUntil, daysLeft })
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
