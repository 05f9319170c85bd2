import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { verifyJournal } from '../../../src/audit/verify.ts'
import {
  appendCalls,
  createAuditedCall,
  createJournalFolder,
  createSoftwareSigner,
  type JournalFolder,
} from '../../support/journal.ts'

let folder: JournalFolder
beforeEach(() => {
  folder = createJournalFolder()
})
afterEach(() => folder[Symbol.dispose]())

const segmentFile = (number = 1) => path.join(folder.directory, `${String(number).padStart(8, '0')}.jsonl`)
const events = (number = 1) =>
  readFileSync(segmentFile(number), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).event)

describe('the journal', () => {
  it('has a record in its file when the append resolves', async () => {
    await using journal = await folder.open()
    const eventId = await journal.appendCall(createAuditedCall(1))
    expect(events().at(-1)).toMatchObject({ eventID: eventId, eventName: 'Encrypt' })
    expect(journal.state()).toMatchObject({ healthy: true, sequence: 2 })
  })

  it('writes the records of one tick in one write, in the order of their calls', async () => {
    const batches: number[] = []
    await using journal = await folder.open({ events: { written: (records) => batches.push(records) } })
    await appendCalls(journal, 50)
    expect(batches).toEqual([1, 50])
    expect(
      events()
        .slice(1)
        .map((event) => event.requestParameters.number),
    ).toEqual([...Array(50).keys()])
  })

  it('writes what arrives during a write in the next one', async () => {
    const batches: number[] = []
    await using journal = await folder.open({ events: { written: (records) => batches.push(records) } })
    const first = journal.appendCall(createAuditedCall(0))
    const rest = new Promise<void>((resolve) => {
      setImmediate(() => appendCalls(journal, 20).then(resolve))
    })
    await Promise.all([first, rest])
    expect(batches.reduce((sum, count) => sum + count)).toBe(22)
    expect(batches.length).toBeLessThanOrEqual(4)
  })

  it('puts records on disk soon after they were written', async () => {
    const synced = Promise.withResolvers<number>()
    await using journal = await folder.open({ events: { synced: synced.resolve } })
    await journal.appendCall(createAuditedCall(1))
    expect(journal.state().unsyncedRecords).toBeGreaterThan(0)
    await synced.promise
    expect(journal.state().unsyncedRecords).toBe(0)
  })

  it('syncs before it resolves when durability is fsync', async () => {
    let synced = 0
    await using journal = await folder.open({
      durability: 'fsync',
      events: {
        synced: (records) => {
          synced += records
        },
      },
    })
    await appendCalls(journal, 10)
    expect(synced).toBe(11)
  })

  it('is closed to other users', async () => {
    await using journal = await folder.open({ reserveBytes: 4096 })
    await journal.appendCall(createAuditedCall(1))
    for (const name of readdirSync(folder.directory)) {
      expect(statSync(path.join(folder.directory, name)).mode & 0o077, name).toBe(0)
    }
  })

  it('starts a new segment when one is full, and the chain goes on', async () => {
    const journal = await folder.open({ segmentBytes: 2000 })
    for (let round = 0; round < 5; round += 1) await appendCalls(journal, 3)
    await journal[Symbol.asyncDispose]()
    expect(existsSync(segmentFile(3))).toBe(true)
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, records: 16 })
  })

  it('refuses a second writer and leaves the first one alone', async () => {
    await using journal = await folder.open()
    await expect(folder.open()).rejects.toMatchObject({
      problems: [{ at: folder.directory, cause: 'another process writes this journal' }],
    })
    await journal.appendCall(createAuditedCall(1))
  })

  it('refuses appends once it is closed', async () => {
    const journal = await folder.open()
    await journal[Symbol.asyncDispose]()
    await expect(journal.appendCall(createAuditedCall(1))).rejects.toMatchObject({ code: 'AuditUnavailable' })
  })

  it('says what is wrong with a folder that it cannot use', async () => {
    const file = path.join(folder.directory, 'file')
    writeFileSync(file, '')
    await expect(folder.open({ directory: file })).rejects.toMatchObject({ problems: [{ at: file }] })
  })
})

describe('a journal that is opened again', () => {
  it('continues the chain', async () => {
    for (let start = 0; start < 3; start += 1) {
      const journal = await folder.open()
      await appendCalls(journal, 3)
      await journal[Symbol.asyncDispose]()
    }
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, records: 12, segments: 1, notes: [] })
  })

  it('moves a torn last line aside and notes it in the chain', async () => {
    const journal = await folder.open()
    await appendCalls(journal, 3)
    await journal[Symbol.asyncDispose]()
    const torn = '{"seq":5,"prev":"00'
    appendFileSync(segmentFile(), torn)
    expect((await verifyJournal(folder.directory)).ok).toBe(false)

    const again = await folder.open()
    await again[Symbol.asyncDispose]()
    const { recovered } = events().at(-1).serviceEventDetails
    expect(recovered).toMatchObject({ bytes: torn.length, wholeLines: 0 })
    expect(readFileSync(path.join(folder.directory, recovered.movedTo), 'utf8')).toBe(torn)
    const verification = await verifyJournal(folder.directory)
    expect([verification.ok, verification.notes.length, verification.records]).toEqual([true, 1, 5])
  })

  it('keeps whole records after damage as evidence, out of the chain', async () => {
    const journal = await folder.open()
    await appendCalls(journal, 5)
    await journal[Symbol.asyncDispose]()
    const bytes = readFileSync(segmentFile())
    const damaged = bytes.indexOf('"seq":4,')
    bytes[damaged + 300] = bytes[damaged + 300]! ^ 1
    writeFileSync(segmentFile(), bytes)
    let told = 0
    const again = await folder.open({
      events: {
        recovered: (_file, _bytes, wholeLines) => {
          told = wholeLines
        },
      },
    })
    await again[Symbol.asyncDispose]()
    expect(told).toBe(3)
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, records: 4 })
  })

  it('survives a power cut that left zeros at the end', async () => {
    const journal = await folder.open()
    await appendCalls(journal, 2)
    await journal[Symbol.asyncDispose]()
    appendFileSync(segmentFile(), Buffer.alloc(5000))
    const again = await folder.open()
    await again.appendCall(createAuditedCall(1))
    await again[Symbol.asyncDispose]()
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, records: 5 })
  })

  it('continues in a segment that was begun and is still empty', async () => {
    const journal = await folder.open()
    await appendCalls(journal, 2)
    await journal[Symbol.asyncDispose]()
    writeFileSync(segmentFile(2), '')
    const again = await folder.open()
    await again[Symbol.asyncDispose]()
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, records: 4, segments: 2 })
  })
})

describe('checkpoints', () => {
  it('are signed on demand, with the revision of the catalog', async () => {
    const signer = createSoftwareSigner()
    const journal = await folder.open()
    journal.useSigner(signer)
    await appendCalls(journal, 3)
    const checkpoint = await journal.checkpoint()
    expect(checkpoint).toMatchObject({ sequence: 4, catalogRevision: 7, publicKey: signer.publicKeyText })
    expect(await journal.checkpoint()).toEqual(checkpoint)
    await journal[Symbol.asyncDispose]()
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, checkpoints: 1, signedThrough: 4 })
  })

  it('are signed after a number of records and at close', async () => {
    const signed = Promise.withResolvers<unknown>()
    const journal = await folder.open({ checkpointRecords: 5, events: { checkpointSigned: signed.resolve } })
    journal.useSigner(createSoftwareSigner())
    await appendCalls(journal, 6)
    await signed.promise
    await appendCalls(journal, 1)
    await journal[Symbol.asyncDispose]()
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, checkpoints: 2 })
  })

  it('that cannot be signed stop nothing', async () => {
    const signer = createSoftwareSigner()
    const failures: unknown[] = []
    const journal = await folder.open({ events: { checkpointFailed: (cause) => failures.push(cause) } })
    journal.useSigner({ ...signer, sign: () => Promise.reject(new Error('the token is gone')) })
    await expect(journal.checkpoint()).rejects.toThrow('the token is gone')
    await appendCalls(journal, 2)
    await journal[Symbol.asyncDispose]()
    expect(failures).toHaveLength(2)
    expect(await verifyJournal(folder.directory)).toMatchObject({ ok: true, checkpoints: 0 })
  })
})

const isolate = ['-rm', 'true']
const canMount = spawnSync('unshare', isolate).status === 0

describe('a full disk', () => {
  it.skipIf(!canMount)('uses the reserve, then withholds results, and heals when there is room again', () => {
    const disk = mkdtempSync(path.join(tmpdir(), 'hsmgate-disk-'))
    const script = path.resolve(import.meta.dirname, '../../support/journal-on-full-disk.ts')
    const { stdout, stderr } = spawnSync('unshare', ['-rm', process.execPath, script, disk], { encoding: 'utf8' })
    rmSync(disk, { recursive: true })
    expect(stderr).toBe('')
    const result = JSON.parse(stdout)
    expect(result).toMatchObject({
      refusal: 'AuditUnavailable',
      healthyWhenFull: false,
      healthyAfterwards: true,
      events: ['diskLow', 'reserveUsed', 'appendFailed ENOSPC'],
      ok: true,
      problems: [],
      reserveBytes: 0,
    })
    expect(result.accepted).toBeGreaterThan(2)
    // One record opened the journal; the refused one is no part of it, the one after the disk had room again is.
    expect(result.records).toBe(1 + (result.accepted - 1) + 1)
  })
})
