/**
 * Runs a journal on a disk that fills up, and prints what happened as JSON. Run inside `unshare -rm`, so that a small tmpfs can be
 * mounted without being root and disappears with the process: node journal-on-full-disk.ts <folder>
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { verifyJournal } from '../../src/audit/verify.ts'
import { createAuditedCall, createJournalFolder } from './journal.ts'

const disk = process.argv[2]!
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk])
const folder = createJournalFolder(disk)
const events: string[] = []
const journal = await folder.open({
  reserveBytes: 2 * 1024 * 1024,
  alarmFreeBytes: 7 * 1024 * 1024,
  events: {
    diskLow: () => events.push('diskLow'),
    reserveUsed: () => events.push('reserveUsed'),
    appendFailed: (_records, cause) => events.push(`appendFailed ${(cause as NodeJS.ErrnoException).code}`),
  },
})

const filler = path.join(disk, 'filler')
fill()
let accepted = 0
let refusal: { code?: string } | undefined
for (; refusal === undefined && accepted < 10_000; accepted += 1) {
  await journal.appendCall(createAuditedCall(accepted)).catch((error: { code?: string }) => {
    refusal = error
  })
  // Somebody else takes whatever the reserve did not use at once.
  fill()
}
const stateWhenFull = journal.state()
rmSync(filler)
await journal.appendCall(createAuditedCall(accepted))
const stateAfterwards = journal.state()
await journal[Symbol.asyncDispose]()
const { ok, records, problems } = await verifyJournal(folder.directory)
process.stdout.write(
  JSON.stringify({
    accepted,
    refusal: refusal?.code,
    healthyWhenFull: stateWhenFull.healthy,
    healthyAfterwards: stateAfterwards.healthy,
    events: [...new Set(events)],
    ok,
    records,
    problems,
    reserveBytes: statSync(path.join(folder.directory, 'reserve')).size,
    files: readdirSync(folder.directory).sort(),
  }),
)

function fill(): void {
  const block = Buffer.alloc(4096, 1)
  try {
    for (;;) writeFileSync(filler, block, { flag: 'a' })
  } catch {
    // The disk is full now, which is what this is for.
  }
}
