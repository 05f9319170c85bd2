/**
 * Every metric of the gateway, in Prometheus' conventions (base units, `_total` for counters). Labels have few values: doors,
 * operations, codes, tokens, groups, roles; never key ids, principals or addresses.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { createDistribution, createLevel, createTally } from './tally.ts'

/** From a public-key operation in memory to a slow network HSM and the 5 s deadline of a call. AWS KMS waits 0.25 s for an XKS proxy. */
const latencyBuckets = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5]

export type Metrics = ReturnType<typeof createMetrics>

export function createMetrics() {
  const registry = new Registry()
  const registers = [registry]
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter<L>({ name: `hsmgate_${name}`, help, labelNames: [...labelNames], registers })
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge<L>({ name: `hsmgate_${name}`, help, labelNames: [...labelNames], registers })
  const histogram = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Histogram<L>({
      name: `hsmgate_${name}`,
      help,
      labelNames: [...labelNames],
      buckets: latencyBuckets,
      registers,
    })
  /** For what happens with every call. */
  const tally = (name: string, help: string, labelNames: readonly string[]) =>
    createTally(registry, { name: `hsmgate_${name}`, help, labelNames })
  const level = (name: string, help: string, labelNames: readonly string[]) =>
    createLevel(registry, { name: `hsmgate_${name}`, help, labelNames })
  const distribution = (name: string, help: string, labelNames: readonly string[]) =>
    createDistribution(registry, { name: `hsmgate_${name}`, help, labelNames }, latencyBuckets)
  collectDefaultMetrics({ register: registry })

  return {
    registry,
    calls: tally('calls_total', 'Authenticated calls by outcome: ok or the error code.', ['door', 'operation', 'code']),
    callSeconds: distribution('call_duration_seconds', 'Time from the parsed request to the outcome.', [
      'door',
      'operation',
    ]),
    unauthenticated: counter('unauthenticated_calls_total', 'Calls refused before their caller was known.', [
      'door',
      'code',
    ]),
    hsmCalls: tally('hsm_calls_total', 'Calls to the HSM layer by outcome: ok or the error code.', [
      'group',
      'operation',
      'code',
    ]),
    hsmQueueSeconds: distribution('hsm_queue_seconds', 'Time until a call was sent to a worker.', [
      'group',
      'operation',
    ]),
    hsmModuleSeconds: distribution('hsm_module_seconds', 'Time inside the PKCS#11 module.', ['group', 'operation']),
    hsmQueueDepth: level('hsm_queue_depth', 'Calls waiting when the last one joined.', ['group', 'lane']),
    hsmRetries: counter('hsm_retries_total', 'Calls that were sent once more.', ['group', 'operation', 'reason']),
    hsmCkr: counter('hsm_ckr_total', 'PKCS#11 return values other than CKR_OK.', ['token', 'call', 'ckr', 'action']),
    hsmQuarantines: counter('hsm_quarantines_total', 'Inputs refused because two workers died of them.', [
      'group',
      'operation',
    ]),
    breakerOpen: gauge('hsm_breaker_open', '1 while no calls are sent to the token.', ['token']),
    breakerOpens: counter('hsm_breaker_opens_total', 'Times that the breaker of a token opened.', ['token']),
    pinRefused: gauge('token_pin_refused', '1 after the token refused the PIN, until it is ready again.', ['token']),
    tokenTrouble: gauge('token_trouble', '1 while the token cannot serve.', ['token']),
    groupReady: gauge('group_ready', '1 while the group has a warm worker.', ['group']),
    workers: gauge('workers', 'Worker processes by state.', ['token', 'role', 'state']),
    workerInFlight: gauge('worker_calls_in_flight', 'Calls sent to workers and not answered yet.', ['token', 'role']),
    sessions: gauge('sessions', 'PKCS#11 sessions of the workers.', ['token', 'role']),
    sessionsInUse: gauge('sessions_in_use', 'PKCS#11 sessions that have a call to work on.', ['token', 'role']),
    workerStarts: counter('worker_starts_total', 'Worker processes started.', ['token', 'role']),
    workerStartSeconds: gauge('worker_start_seconds', 'How long the last worker took until it was warm.', [
      'token',
      'role',
    ]),
    workerDeaths: counter('worker_deaths_total', 'Worker processes that ended.', ['token', 'role', 'expected']),
    workerReplacements: counter('worker_replacements_total', 'Workers replaced.', ['token', 'role']),
    offloadConnections: gauge('offload_connections', 'Open connections of the offload door.', ['peer']),
    offloadClosed: counter('offload_connections_closed_total', 'Connections of the offload door that ended.', [
      'peer',
      'reason',
    ]),
    offloadRefused: tally('offload_refused_total', 'Requests of the offload door that were answered ERROR.', [
      'peer',
      'code',
    ]),
    offloadStrangers: counter('offload_strangers_total', 'Connections to the offload door that were not let in.', [
      'peer',
    ]),
    relayCertificate: gauge('relay_certificate_expires_seconds', 'Time until the newest certificate of a relay ends.', [
      'relay',
    ]),
    relayDoorCertificate: gauge(
      'relay_door_certificate_expires_seconds',
      'Time until the certificate that relays are shown ends.',
    ),
    destructionPaused: gauge('destruction_paused', '1 while no key is destroyed, for this reason.', ['reason']),
    xksCredentialAge: gauge('xks_credential_age_seconds', 'Age of the newest credential of an external key store.', [
      'store',
    ]),
    xksCredentials: gauge('xks_credentials', 'Live credentials of an external key store.', ['store']),
    xksBlocked: gauge('xks_blocked', '1 while an external key store is blocked.', ['store']),
    xksKeysBlocked: gauge('xks_keys_blocked', 'Blocked keys of an external key store.', ['store']),
    xksHealthy: gauge('xks_healthy', '1 if a key of the group encrypted and decrypted at the last GetHealthStatus.', [
      'group',
    ]),
    xksCertificate: gauge('xks_certificate_expires_seconds', 'Time until the certificate of the XKS door ends.'),
    auditRecords: counter('audit_records_total', 'Records written to the journal.'),
    auditBytes: counter('audit_bytes_total', 'Bytes written to the journal.'),
    auditWriteSeconds: histogram('audit_write_seconds', 'Time to write one batch of records.'),
    auditLagSeconds: histogram('audit_sync_lag_seconds', 'Age of the oldest record when its sync finished.'),
    auditFailures: counter('audit_failures_total', 'Failures of the journal by step.', ['step']),
    auditHealthy: gauge('audit_healthy', '1 while records can be written.'),
    auditSequence: gauge('audit_sequence', 'Sequence number of the last record.'),
    auditUnsynced: gauge('audit_unsynced_records', 'Records that are written but not on disk yet.'),
    auditFreeBytes: gauge('audit_disk_free_bytes', 'Free space on the disk of the journal.'),
    auditCheckpoint: gauge('audit_checkpoint_sequence', 'Last record that a signed checkpoint covers.'),
  }
}
