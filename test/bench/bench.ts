/**
 * `npm run bench`: the raw module, the HTTP ceiling and the gateway side by side in one run, and the ratios between them. Everything lives
 * in a temporary folder and on free ports of loopback. Figures are for reading; the ratios hold on any machine.
 */
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { loadIdentity } from './client.ts'
import { type GrantedKeys, measureGrowth, prepareGrants } from './growth.ts'
import { operations } from './operations.ts'
import { familyOf, residentMegabytes, startDevelopment, startHttpCeiling, startServe } from './processes.ts'
import { type Bench, formatAddedLatency, formatSpeed, measureSpeed, speedLegend } from './speed.ts'
import { formatTable, type Row } from './tables.ts'

const usage = `npm run bench -- [options]
  --only authorize,speed,memory,growth   parts to run (default: all); the start is always measured
  --operations a,b             operations whose name contains one of these words
  --connections 1,8,64         connections of the load
  --rounds n, --seconds s      rounds of each measurement (3) and their length (1)
  --profile folder             CPU profiles of gateway and workers, for reading with Chrome or speedscope
  --keep                       keeps the temporary folder
`

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'authorize,speed,memory,growth' },
    operations: { type: 'string', default: '' },
    connections: { type: 'string', default: '1,8,64' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '1' },
    profile: { type: 'string' },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
const residentLimitMegabytes = 400

const write = (text: string) => process.stdout.write(text)

async function run(): Promise<void> {
  const startedMs = performance.now()
  const parts = values.only.split(',')
  const words = values.operations.toLowerCase().split(',')
  const [cpu] = os.cpus()
  write(`hsmgate bench: Node ${process.version}, ${os.availableParallelism()} × ${cpu?.model}, load average `)
  write(`${os.loadavg()[0]?.toFixed(1)}\n`)

  await using stack = new AsyncDisposableStack()
  const home = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-bench-'))
  stack.defer(async () => {
    if (values.keep) write(`\nkept ${home}\n`)
    else await rm(home, { recursive: true, force: true })
  })
  const directory = path.join(home, 'state')
  if (values.profile !== undefined) await mkdir(values.profile, { recursive: true })

  const first = await startDevelopment(directory)
  const granted: GrantedKeys = parts.includes('growth') ? await prepareGrants(directory, first) : []
  await first[Symbol.asyncDispose]()
  const gateway = stack.use(await startServe(directory, values.profile))
  write('\nStart\n\n')
  write(
    formatTable(
      ['', 'ms'],
      [
        ['first: makes token, catalog, system keys and administrator, proves itself (hsmgate dev)', first.startMs],
        ['second: on what is there (hsmgate serve)', gateway.startMs],
      ],
    ),
  )
  const identity = await loadIdentity(path.join(directory, 'credentials'))
  // As long as an answer of Sign with an RSA key, the longest of the short ones.
  const answer = JSON.stringify({ KeyId: 'x'.repeat(75), Signature: 'x'.repeat(344), SigningAlgorithm: 'x'.repeat(25) })
  const ceiling = stack.use(await startHttpCeiling({ ...identity, answer }))
  const bench: Bench = { directory, identity, gateway, ceiling }
  const before = memoryRows(gateway.pid)

  if (parts.includes('authorize')) {
    write('\nAuthorization\n\n')
    // In a process of its own: it counts the CPU time of the whole process. Its status says whether the budget was kept.
    spawnSync(process.execPath, [path.join(import.meta.dirname, 'authorize.ts')], { stdio: 'inherit' })
  }
  if (parts.includes('speed')) {
    const cells = await measureSpeed(bench, {
      operations: operations.filter(({ name }) => words.some((word) => name.toLowerCase().includes(word))),
      connections: values.connections.split(',').map(Number),
      rounds: Number(values.rounds),
      seconds: Number(values.seconds),
    })
    write(`\nSpeed, medians of ${values.rounds} rounds of ${values.seconds} s\n\n${formatSpeed(cells)}${speedLegend}`)
    write(formatAddedLatency(cells))
  }
  if (parts.includes('memory')) {
    write('\nResident memory in MiB: after the start, and now\n\n')
    write(formatMemory(before, memoryRows(gateway.pid)))
  }
  if (parts.includes('growth')) {
    write(`\nGrowth, 1 connection\n\n${await measureGrowth(bench, granted)}`)
  }
  write(`\n${((performance.now() - startedMs) / 1000).toFixed(0)} s\n`)
}

type Memory = readonly { readonly role: string; readonly rss: number; readonly pss: number }[]

function memoryRows(pid: number): Memory {
  return familyOf(pid).map((member) => ({ role: member.role, ...residentMegabytes(member.pid) }))
}

function formatMemory(before: Memory, after: Memory): string {
  const sum = (rows: Memory, column: 'rss' | 'pss') => rows.reduce((total, row) => total + row[column], 0)
  const rows = after.map(({ role, rss, pss }, i): Row => [role, before[i]?.rss ?? Number.NaN, rss, pss, '', ''])
  const total = sum(after, 'rss')
  const verdict = total <= residentLimitMegabytes ? 'met' : 'MISSED'
  return formatTable(
    ['process', 'RSS start', 'RSS now', 'PSS now', 'limit', ''],
    [...rows, ['together', sum(before, 'rss'), total, sum(after, 'pss'), residentLimitMegabytes, verdict]],
  )
}

if (values.help) write(usage)
else await run()
