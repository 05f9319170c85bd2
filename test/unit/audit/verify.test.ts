import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Checkpoint } from '../../../src/audit/audit.ts'
import { encodeLines, genesis } from '../../../src/audit/chain.ts'
import { encodeCheckpoint } from '../../../src/audit/checkpoint.ts'
import { type Anchor, parseAnchor, verifyJournal } from '../../../src/audit/verify.ts'
import { appendCalls, createJournalFolder, createSoftwareSigner, type JournalFolder } from '../../support/journal.ts'

const signer = createSoftwareSigner()
let folder: JournalFolder
let copy: string
let segments: readonly string[]
let anchor: Anchor
let exported: Checkpoint
/** The whole journal in one text, segment boundaries as in the folder. */
let original: readonly Buffer[]

beforeAll(async () => {
  folder = createJournalFolder()
  const journal = await folder.open({ segmentBytes: 4000 })
  journal.useSigner(signer)
  for (let round = 0; round < 4; round += 1) {
    await appendCalls(journal, 4)
    exported = (await journal.checkpoint())!
  }
  await journal[Symbol.asyncDispose]()
  anchor = parseAnchor(JSON.stringify(exported))!
  segments = readdirSync(folder.directory).filter((name) => name.endsWith('.jsonl'))
  original = segments.map((name) => readFileSync(path.join(folder.directory, name)))
  copy = path.join(folder.directory, 'copy')
})

afterAll(() => folder[Symbol.dispose]())

function verifyCopy(contents: readonly Buffer[], anchors: readonly Anchor[] = [anchor]) {
  rmSync(copy, { recursive: true, force: true })
  mkdirSync(copy)
  contents.forEach((bytes, index) => {
    writeFileSync(path.join(copy, segments[index]!), bytes)
  })
  return verifyJournal(copy, { anchors, publicKeys: [signer.publicKeyText] })
}

const lines = (bytes: Buffer) => bytes.toString('latin1').split('\n').slice(0, -1)
const joined = (rows: readonly string[]) => Buffer.from(rows.map((row) => `${row}\n`).join(''), 'latin1')
const inSegment = () => fc.nat({ max: segments.length - 1 })

describe('verifying a journal', () => {
  it('accepts what the journal wrote, over several segments', async () => {
    expect(segments.length).toBeGreaterThan(2)
    const verification = await verifyCopy(original)
    expect(verification).toMatchObject({
      ok: true,
      segments: segments.length,
      records: 21,
      firstSequence: 1,
      lastSequence: 21,
      checkpoints: 4,
      signedThrough: exported.sequence,
      publicKeys: [signer.publicKeyText],
      problems: [],
    })
  })

  it('detects any changed byte', async () => {
    await fc.assert(
      fc.asyncProperty(inSegment(), fc.nat(), fc.integer({ min: 1, max: 255 }), async (segment, position, change) => {
        const contents = original.map((bytes) => Buffer.from(bytes))
        const bytes = contents[segment]!
        const at = position % bytes.length
        bytes[at] = bytes[at]! ^ change
        expect((await verifyCopy(contents)).ok).toBe(false)
      }),
      { numRuns: 80 },
    )
  })

  it('detects any removed record', async () => {
    for (const [segment, bytes] of original.entries()) {
      for (const index of lines(bytes).keys()) {
        const contents = original.with(segment, joined(lines(bytes).toSpliced(index, 1)))
        expect((await verifyCopy(contents)).ok, `${segment}:${index}`).toBe(false)
      }
    }
  })

  it('detects any two records that changed places', async () => {
    await fc.assert(
      fc.asyncProperty(inSegment(), fc.nat(), fc.nat(), async (segment, first, second) => {
        const rows = lines(original[segment]!)
        const [a, b] = [first % rows.length, second % rows.length]
        fc.pre(a !== b)
        const contents = original.with(segment, joined(rows.with(a, rows[b]!).with(b, rows[a]!)))
        expect((await verifyCopy(contents)).ok).toBe(false)
      }),
      { numRuns: 60 },
    )
  })

  it('detects a repeated record', async () => {
    const rows = lines(original[1]!)
    expect((await verifyCopy(original.with(1, joined([...rows, rows.at(-1)!])))).ok).toBe(false)
  })

  it('detects truncation anywhere before the anchor', async () => {
    const whole = Buffer.concat(original)
    const anchored = whole.indexOf('\n', whole.indexOf(`"seq":${anchor.sequence},`)) + 1
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: anchored - 1 }), async (length) => {
        let left = length
        const contents = original.map((bytes) => {
          const kept = bytes.subarray(0, left)
          left = Math.max(0, left - bytes.length)
          return kept
        })
        expect((await verifyCopy(contents)).ok).toBe(false)
      }),
      { numRuns: 60 },
    )
  })

  it('detects missing segments at the start, in the middle and at the end', async () => {
    for (const missing of segments.keys()) {
      await verifyCopy(original)
      rmSync(path.join(copy, segments[missing]!))
      expect((await verifyJournal(copy, { anchors: [anchor] })).ok, segments[missing]).toBe(false)
    }
  })

  it('detects segments that changed places', async () => {
    await verifyCopy(original)
    const [first, second] = [path.join(copy, segments[0]!), path.join(copy, segments[1]!)]
    renameSync(first, `${first}.x`)
    renameSync(second, first)
    renameSync(`${first}.x`, second)
    expect((await verifyJournal(copy)).ok).toBe(false)
  })

  it('detects a history that was written anew, by its signatures', async () => {
    const other = createSoftwareSigner()
    const forged = createJournalFolder()
    const journal = await forged.open()
    journal.useSigner(other)
    await appendCalls(journal, 20)
    await journal[Symbol.asyncDispose]()
    const trusting = await verifyJournal(forged.directory)
    expect([trusting.ok, trusting.publicKeys]).toEqual([true, [other.publicKeyText]])
    expect((await verifyJournal(forged.directory, { publicKeys: [signer.publicKeyText] })).ok).toBe(false)
    expect((await verifyJournal(forged.directory, { anchors: [anchor] })).ok).toBe(false)
    forged[Symbol.dispose]()
  })

  it('detects a checkpoint whose signature is about something else', async () => {
    const forged = encodeCheckpoint({ ...exported, sequence: 1, hash: '0'.repeat(64) }, 0)
    const { bytes } = encodeLines(genesis, ['{}', forged.event], { buffer: Buffer.alloc(0) })
    const verification = await verifyCopy([Buffer.from(bytes)], [])
    expect(verification.problems).toEqual([
      { at: '00000001.jsonl:2', text: 'the checkpoint is about another record 1' },
    ])
  })

  it('cannot miss records after the last checkpoint without an anchor, and says how far the signatures reach', async () => {
    const rows = lines(original[0]!)
    const verification = await verifyCopy([joined(rows.slice(0, 2))], [])
    expect([verification.ok, verification.signedThrough]).toEqual([true, 0])
  })

  it('accepts archived first segments when their last record is an anchor', async () => {
    await verifyCopy(original)
    rmSync(path.join(copy, segments[0]!))
    const archived = parseAnchor(Buffer.from(lines(original[0]!).at(-1)!, 'latin1').toString())!
    const verification = await verifyJournal(copy, { anchors: [archived, anchor] })
    expect([verification.ok, verification.notes.length]).toEqual([true, 1])
    expect((await verifyJournal(copy, { anchors: [anchor] })).ok).toBe(false)
  })

  it('finds nothing whole in an empty folder', async () => {
    expect((await verifyCopy([], [])).ok).toBe(false)
  })

  it('survives any bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), async (bytes) => {
        expect((await verifyCopy([Buffer.from(bytes)], [])).ok).toBe(false)
      }),
      { numRuns: 50 },
    )
  })
})

describe('an anchor', () => {
  it('is an exported checkpoint or a line of the journal', () => {
    expect(anchor).toMatchObject({ sequence: exported.sequence, hash: exported.hash })
    const line = lines(original[0]!)[0]!
    expect(parseAnchor(Buffer.from(line, 'latin1').toString())).toMatchObject({ sequence: 1 })
  })

  it.each(['', '{}', 'null', '{"sequence":1}', '[1]', '{"seq":1'])('is not %j', (text) => {
    expect(parseAnchor(text)).toBeUndefined()
  })

  it('with a wrong signature is a problem', async () => {
    const wrong = { ...anchor, checkpoint: { ...exported, catalogRevision: 8 } }
    const { problems } = await verifyCopy(original, [wrong])
    expect(problems).toEqual([{ at: 'anchor', text: 'the signature of the checkpoint is wrong' }])
  })
})
