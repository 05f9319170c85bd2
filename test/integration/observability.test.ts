/** Metrics, alert rules and the board of deploy/grafana, checked by promtool (deploy/setup.sh fetches it) against a gateway that worked. */
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { CreateKeyCommand, EncryptCommand } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../support/command.ts'
import { startGateway } from '../support/gateway.ts'

const checkout = path.resolve(import.meta.dirname, '../..')
const unpacked = path.join(checkout, 'node_modules/.cache/promtool/promtool')
const promtool = existsSync(unpacked) ? unpacked : 'promtool'
const rulesFile = path.join(checkout, 'deploy/grafana/alerts.yml')

interface Panel {
  readonly title: string
  readonly targets?: readonly { readonly expr: string }[]
}

const board = JSON.parse(readFileSync(path.join(checkout, 'deploy/grafana/hsmgate.json'), 'utf8')) as {
  panels: Panel[]
}
/** As Grafana fills them in. */
const boardQueries = board.panels
  .flatMap(({ targets = [] }) => targets)
  .map(({ expr }) => expr.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*'))

let folder: string
let metrics: string

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-metrics-'))
  await using gateway = await startGateway()
  const kms = gateway.client()
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  const KeyId = KeyMetadata!.KeyId!
  await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
  await kms.send(new EncryptCommand({ KeyId: 'alias/none', Plaintext: Buffer.from('x') })).catch(() => {})
  await gateway.ask('audit', 'checkpoint')
  metrics = await (await fetch(`${gateway.gateway.endpoints.operator}/metrics`)).text()
}, 60_000)

afterAll(() => rm(folder, { recursive: true, force: true }))

/** Names of families that the gateway shows, with the series names of histograms. */
function knownNames(): ReadonlySet<string> {
  const types = [...metrics.matchAll(/^# TYPE (\w+) (\w+)$/gm)]
  return new Set(
    types.flatMap(([, name = '', type]) =>
      type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  )
}

async function check(words: readonly string[], input = ''): Promise<readonly [status: number | null, text: string]> {
  const { status, stdout, stderr } = await run(promtool, words, { input: Buffer.from(input) })
  return [status, `${stdout}${stderr}`]
}

/** As forges make anchors of headings. */
const toAnchor = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[^\w -]/g, '')
    .replaceAll(' ', '-')

describe('the metrics of a gateway', () => {
  it.each([
    ['operations by outcome', /^hsmgate_calls_total\{door="kms",operation="Encrypt",code="ok"\} 1$/m],
    ['refusals by code', /^hsmgate_calls_total\{door="kms",operation="Encrypt",code="KeyNotFound"\} 1$/m],
    ['latency', /^hsmgate_call_duration_seconds_count\{door="kms",operation="Encrypt"\} 2$/m],
    ['queue wait', /^hsmgate_hsm_queue_seconds_count\{group="default",operation="\w+"\} [1-9]/m],
    ['time inside the module', /^hsmgate_hsm_module_seconds_count\{group="default",operation="\w+"\} [1-9]/m],
    ['sessions', /^hsmgate_sessions\{token="softhsm",role="serve"\} [1-9]/m],
    ['sessions in use', /^hsmgate_sessions_in_use\{token="softhsm",role="serve"\} 0$/m],
    ['states of workers', /^hsmgate_workers\{token="softhsm",role="manage",state="ready"\} 1$/m],
    ['replacements of workers', /^# TYPE hsmgate_worker_replacements_total counter$/m],
    ['return values by token', /^# TYPE hsmgate_hsm_ckr_total counter$/m],
    ['audit lag', /^hsmgate_audit_sync_lag_seconds_count [1-9]/m],
    ['signed checkpoints', /^hsmgate_audit_checkpoint_sequence [1-9]/m],
    ['pauses of destruction', /^hsmgate_destruction_paused\{reason="clock"\} 0$/m],
  ])('show %s', (_, pattern) => {
    expect(metrics).toMatch(pattern)
  })

  it('keep the conventions of Prometheus', async () => {
    // Those of Node itself are prom-client's.
    const own = metrics.split('\n').filter((line) => !/^(# \w+ )?(nodejs|process)_/.test(line))
    expect(await check(['check', 'metrics'], own.join('\n'))).toEqual([0, ''])
  })

  it('have few values in their labels: no key, caller or address', () => {
    expect(metrics).not.toMatch(/[0-9a-f]{8}-[0-9a-f]{4}-|arn:aws|AKIA|127\.0\.0\.1/)
  })
})

describe('the alert rules', () => {
  it('are rules', async () => {
    const [status, text] = await check(['check', 'rules', rulesFile])
    expect([status, text]).toEqual([0, expect.stringMatching(/SUCCESS: \d+ rules found/)])
  })

  it('say what to do, and where that is written', () => {
    const rules = readFileSync(rulesFile, 'utf8').split('- alert: ').slice(1)
    for (const rule of rules) {
      const [, page = '', anchor] = /^ {10}runbook: ([\w/-]+\.md)(?:#([\w-]+))?$/m.exec(rule) ?? []
      expect(rule).toMatch(/^ {10}description: '.+'$/m)
      const headings = readFileSync(path.join(checkout, page), 'utf8').matchAll(/^#+ (.+)$/gm)
      const anchors = [...headings].map(([, heading]) => toAnchor(heading!))
      if (anchor !== undefined) expect(anchors).toContain(anchor)
    }
    expect(rules.length).toBeGreaterThan(20)
  })

  it('speak of metrics that exist', () => {
    const names = [...readFileSync(rulesFile, 'utf8').matchAll(/hsmgate_\w+/g)].map(([name]) => name)
    expect(names.length).toBeGreaterThan(10)
    expect(names.filter((name) => !knownNames().has(name))).toEqual([])
  })

  it('speak of error codes and steps that exist', async () => {
    const { errorCodes, GatewayError } = await import('../../src/error.ts')
    const { describeFailure } = await import('../../src/transport/offload/dialect.ts')
    const { OffloadError } = await import('../../src/transport/offload/offload-error.ts')
    const ofAnyDoor = Object.keys(errorCodes) as (keyof typeof errorCodes)[]
    // The signing endpoint counts refusals by the name that the audit record has.
    const ofOffload = [
      ...ofAnyDoor.map((code) => describeFailure(new GatewayError(code as 'ValidationFailed', {} as never)).code),
      ...(['PeerRefused', 'PolicyRefused', 'Busy'] as const).map(
        (code) => describeFailure(new OffloadError(code, '')).code,
      ),
    ]
    const known = new Set<string>(['ok', ...ofAnyDoor, ...ofOffload])
    const codes = [...readFileSync(rulesFile, 'utf8').matchAll(/code=~?"([\w|]+)"/g)].flatMap(([, all]) =>
      all!.split('|'),
    )
    expect(codes.length).toBeGreaterThan(5)
    expect(codes.filter((code) => !known.has(code))).toEqual([])
  })

  it('fire when they should, and not before', async () => {
    const labels = 'instance="a"'
    const file = path.join(folder, 'alerts.test.yml')
    const series = (name: string, more: string, values: string) => ({
      series: `${name}{${labels}${more}}`,
      values,
    })
    const tests = {
      rule_files: [rulesFile],
      evaluation_interval: '15s',
      tests: [
        {
          interval: '15s',
          input_series: [
            series('hsmgate_audit_healthy', '', '1 1 1 1 0 0 0 0 0'),
            series('hsmgate_group_ready', ', group="default"', '1 1 1 1 1 1 1 1 1'),
            series('hsmgate_destruction_paused', ', reason="clock"', '1+0x60'),
            series('hsmgate_calls_total', ', operation="Encrypt", code="ok"', '0+100x60'),
            series('hsmgate_calls_total', ', operation="Encrypt", code="KeyNotFound"', '0+100x60'),
            series('hsmgate_calls_total', ', operation="Sign", code="ok"', '0+100x60'),
            series('hsmgate_calls_total', ', operation="Sign", code="HsmFailure"', '0+100x60'),
          ],
          alert_rule_test: [
            { eval_time: '45s', alertname: 'HsmgateAuditUnwritable', exp_alerts: [] },
            alertAt('90s', 'HsmgateAuditUnwritable', { severity: 'page', instance: 'a' }),
            { eval_time: '2m', alertname: 'HsmgateGroupNotReady', exp_alerts: [] },
            { eval_time: '2m', alertname: 'HsmgateDestructionPaused', exp_alerts: [] },
            alertAt('6m', 'HsmgateDestructionPaused', { severity: 'ticket', instance: 'a', reason: 'clock' }),
            alertAt('10m', 'HsmgateFailures', { severity: 'page', instance: 'a', operation: 'Sign' }),
          ],
        },
        {
          name: 'the signing endpoint',
          interval: '15s',
          input_series: [
            series('hsmgate_calls_total', ', door="offload", operation="Sign", code="ok"', '0+100x60'),
            series('hsmgate_offload_refused_total', ', peer="local", code="Busy"', '0x20 0+10x40'),
            series('hsmgate_offload_refused_total', ', peer="local", code="PolicyDenied"', '0x20 0+1x40'),
            series('hsmgate_offload_connections', ', peer="relay"', '2x20 0x40'),
            series('hsmgate_relay_certificate_expires_seconds', ', relay="web1"', '1209610-15x60'),
            series('hsmgate_relay_door_certificate_expires_seconds', '', '0x60'),
          ],
          alert_rule_test: [
            quietAt('5m', 'HsmgateTlsFailures'),
            alertAt('12m', 'HsmgateTlsFailures', { severity: 'page', instance: 'a' }),
            quietAt('5m', 'HsmgateTlsMisuse'),
            alertAt('10m', 'HsmgateTlsMisuse', { severity: 'ticket', instance: 'a', code: 'PolicyDenied' }),
            quietAt('5m', 'HsmgateRelaysGone'),
            alertAt('11m', 'HsmgateRelaysGone', { severity: 'ticket', instance: 'a', peer: 'relay' }),
            quietAt('0s', 'HsmgateRelayCertificateEnds'),
            alertAt('10m', 'HsmgateRelayCertificateEnds', { severity: 'ticket', instance: 'a', relay: 'web1' }),
            quietAt('10m', 'HsmgateRelayDoorCertificateEnds'),
            quietAt('10m', 'HsmgateTlsKeyGone'),
          ],
        },
        {
          name: 'a signing endpoint that never answered anything well',
          interval: '15s',
          input_series: [series('hsmgate_offload_refused_total', ', peer="relay", code="KeyDisabled"', '0 1+1x40')],
          alert_rule_test: [
            quietAt('10m', 'HsmgateTlsFailures'),
            alertAt('10m', 'HsmgateTlsKeyGone', { severity: 'page', instance: 'a', code: 'KeyDisabled' }),
          ],
        },
        {
          name: 'a signing endpoint whose module is gone from the start',
          interval: '15s',
          input_series: [series('hsmgate_offload_refused_total', ', peer="local", code="KeyUnavailable"', '0+5x40')],
          alert_rule_test: [
            alertAt(
              '10m',
              'HsmgateTlsFailures',
              { severity: 'page', instance: 'a' },
              '100% of the signatures for handshakes fail on a',
            ),
          ],
        },
        {
          name: 'external key stores',
          interval: '15s',
          input_series: [
            series('hsmgate_calls_total', ', door="xks", operation="Decrypt", code="ok"', '0+90x60'),
            series('hsmgate_calls_total', ', door="xks", operation="Decrypt", code="DeadlineExceeded"', '0+10x60'),
            series('hsmgate_call_duration_seconds_count', ', door="xks", operation="Decrypt"', '0+100x80'),
            series('hsmgate_call_duration_seconds_bucket', ', door="xks", operation="Decrypt", le="0.1"', '0+75x80'),
            series('hsmgate_xks_healthy', ', group="default"', '1x8 0x60'),
            series('hsmgate_xks_certificate_expires_seconds', '', '86400x60'),
          ],
          alert_rule_test: [
            quietAt('2m', 'HsmgateXksUnhealthy'),
            alertAt('4m', 'HsmgateXksUnhealthy', { severity: 'page', instance: 'a', group: 'default' }),
            alertAt('5m', 'HsmgateXksFailures', { severity: 'page', instance: 'a' }),
            quietAt('5m', 'HsmgateXksSlow'),
            alertAt('15m', 'HsmgateXksSlow', { severity: 'ticket', instance: 'a' }),
            alertAt('5m', 'HsmgateXksCertificateEnds', { severity: 'page', instance: 'a' }),
            quietAt('10m', 'HsmgateXksThrottled'),
          ],
        },
      ],
    }
    await writeFile(file, JSON.stringify(tests))
    const [status, text] = await check(['test', 'rules', file])
    expect([status, text]).toEqual([0, expect.stringContaining('SUCCESS')])
  })
})

const summaries: Readonly<Record<string, string>> = {
  HsmgateAuditUnwritable: 'the audit journal on a cannot be written: results are withheld',
  HsmgateDestructionPaused: 'no key is destroyed on a (clock)',
  HsmgateFailures: '50% of Sign fail on a',
  HsmgateTlsFailures: '9.009% of the signatures for handshakes fail on a',
  HsmgateTlsMisuse: 'tokens are used on a for what they are not for (PolicyDenied): revoked, stolen, or a wrong set-up',
  HsmgateTlsKeyGone: 'a TLS server asks a for a key that cannot be used (KeyDisabled): its handshakes fail',
  HsmgateRelaysGone: 'no relay is connected to a any more',
  HsmgateRelayCertificateEnds: 'the certificate of relay web1 ends in 13d 23h 50m 10s',
  HsmgateXksUnhealthy: 'keys of external key stores in group default do not encrypt on a',
  HsmgateXksFailures: '10% of the calls of AWS KMS fail on a',
  HsmgateXksSlow: '25% of the calls of AWS KMS take a more than 100 ms',
  HsmgateXksCertificateEnds: 'the certificate of the XKS door of a ends in 1d 0h 0m 0s; then all data is unreadable',
}

/** As the rules have them; they have no variables. */
const advice = new Map(
  readFileSync(rulesFile, 'utf8')
    .split('- alert: ')
    .map((rule) => [
      /^\w+/.exec(rule)?.[0],
      {
        description: /^ {10}description: '(.*)'$/m.exec(rule)?.[1],
        runbook: /^ {10}runbook: (.*)$/m.exec(rule)?.[1],
      },
    ]),
)

const quietAt = (evalTime: string, alertname: string): object => ({ eval_time: evalTime, alertname, exp_alerts: [] })

function alertAt(
  evalTime: string,
  alertname: string,
  labels: Readonly<Record<string, string>>,
  summary = summaries[alertname],
): object {
  const annotations = { summary, ...advice.get(alertname) }
  return { eval_time: evalTime, alertname, exp_alerts: [{ exp_labels: labels, exp_annotations: annotations }] }
}

describe('the board', () => {
  it('asks queries that Prometheus understands', async () => {
    expect(boardQueries.length).toBeGreaterThan(15)
    const file = path.join(folder, 'board.yml')
    const rules = boardQueries.map((expr, index) => ({ record: `board:query${index}`, expr }))
    await writeFile(file, JSON.stringify({ groups: [{ name: 'board', rules }] }))
    const [status, text] = await check(['check', 'rules', file])
    expect([status, text]).toEqual([0, expect.stringContaining(`${boardQueries.length} rules found`)])
  })

  it('asks for metrics that exist', () => {
    const names = boardQueries.flatMap((query) =>
      [...query.matchAll(/(?:hsmgate|process|nodejs)_\w+/g)].map(([name]) => name),
    )
    expect(names.filter((name) => !knownNames().has(name))).toEqual([])
  })
})
