import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openJournal } from '../../../src/audit/journal.ts'
import { loadAddon } from '../../../src/hsm/worker/addon.ts'
import { runHsmgate } from '../../support/terminal.ts'

let folder: string
let file: string

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-cli-'))
  file = path.join(folder, 'config.json')
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const leaves = [
  ['dev'],
  ['init'],
  ['serve'],
  ['check'],
  ['principal', 'create'],
  ['principal', 'list'],
  ['principal', 'enable'],
  ['principal', 'disable'],
  ['principal', 'delete'],
  ['principal', 'policy', 'put'],
  ['principal', 'policy', 'get'],
  ['principal', 'policy', 'delete'],
  ['principal', 'key', 'create'],
  ['principal', 'key', 'list'],
  ['principal', 'key', 'enable'],
  ['principal', 'key', 'disable'],
  ['principal', 'key', 'delete'],
  ['role', 'create'],
  ['role', 'list'],
  ['role', 'show'],
  ['role', 'enable'],
  ['role', 'disable'],
  ['role', 'delete'],
  ['role', 'trust'],
  ['role', 'policy', 'put'],
  ['role', 'policy', 'delete'],
  ['policy', 'simulate'],
  ['policy', 'who-can'],
  ['key', 'list'],
  ['key', 'show'],
  ['token', 'list'],
  ['token', 'retry-login'],
  ['clock', 'show'],
  ['clock', 'confirm'],
  ['audit', 'verify'],
  ['audit', 'checkpoint'],
  ['relay', 'enroll'],
  ['relay', 'run'],
  ['relay', 'check'],
]

describe('the command line', () => {
  it.each(leaves.map((words) => [words.join(' '), words] as const))(
    '%s explains itself, with the options of all commands',
    async (_name, words) => {
      const { code, out, err } = await runHsmgate([...words, '--help'])
      expect([code, err]).toEqual([0, ''])
      expect(out).toContain(`Usage: hsmgate ${words.join(' ')}`)
      for (const option of ['--json', '--config <file>', '--help']) expect(out).toContain(option)
    },
  )

  it('prints its version', async () => {
    const { version } = JSON.parse(await readFile('package.json', 'utf8'))
    expect(await runHsmgate(['--version'])).toEqual({ code: 0, out: `${version}\n`, err: '' })
  })

  it.each([
    ['no command', []],
    ['half a command', ['principal', 'key']],
    ['an unknown command', ['nope']],
    ['an unknown option', ['key', 'list', '--nope']],
    ['a missing word', ['principal', 'create']],
    ['too many words', ['principal', 'create', 'a', 'b']],
    ['a missing option', ['principal', 'policy', 'put', 'bob']],
    ['an option without its value', ['check', '--config']],
    ['a port that is none', ['dev', '--kms-port', '65536']],
    ['a port that is a word', ['dev', '--operator-port', '1e3']],
  ])('answers 2 to %s', async (_name, words) => {
    const { code, out, err } = await runHsmgate(words)
    expect([code, out]).toEqual([2, ''])
    expect(err).not.toBe('')
  })

  it('answers 3 where no gateway runs', async () => {
    await writeFile(file, '{"development":true,"tokens":{"a":{"module":"m","label":"l","pinFile":"p"}}}')
    const { code, out, err } = await runHsmgate(['key', 'list', '--config', file])
    expect([code, out]).toEqual([3, ''])
    expect(err).toBe(
      `${folder}/run/operator.sock: no gateway runs here: the socket is missing\n  remedy: start it (systemctl start hsmgate, or hsmgate serve; development: npm start), or name its configuration with --config; its log (journalctl -u hsmgate) says why it ended\n`,
    )
  })

  it('takes the options of all commands before and after the command', async () => {
    await writeFile(file, '{"development":true,"tokens":{"a":{"module":"m","label":"l","pinFile":"p"}}}')
    const before = await runHsmgate(['--json', '--config', file, 'token', 'list'])
    expect(before).toEqual(await runHsmgate(['token', 'list', '--config', file, '--json']))
    expect(JSON.parse(before.err).problems[0].at).toBe(`${folder}/run/operator.sock`)
  })

  it('finds the configuration that the environment names', async () => {
    const { code, err } = await runHsmgate(['key', 'list'], '', { HSMGATE_CONFIG: file })
    expect([code, err]).toEqual([
      1,
      `${file}: does not exist\n  remedy: run \`hsmgate init\`, or name another file with --config\n`,
    ])
  })

  it('shows where a failure happened only when it is asked to', async () => {
    const words = ['check', '--config', file]
    expect((await runHsmgate(words)).err).not.toContain('at ')
    expect((await runHsmgate(words, '', { HSMGATE_DEBUG: '1' })).err).toContain('    at ')
  })
})

describe('hsmgate check', () => {
  it('prints the effective configuration as JSON', async () => {
    await writeFile(path.join(folder, 'pin'), '1234', { mode: 0o600 })
    const token = { module: process.execPath, label: 'l', pinFile: 'pin' }
    await writeFile(file, JSON.stringify({ development: true, tokens: { a: token } }))
    const { code, out, err } = await runHsmgate(['check', '--config', file])
    expect([code, err]).toEqual([0, ''])
    expect(JSON.parse(out)).toMatchObject({
      defaultGroup: 'default',
      tokens: { a: { pinFile: `${folder}/pin`, workers: 2 } },
    })
  })

  it('reports everything that is wrong at once, with a remedy for each', async () => {
    await writeFile(file, '{"tokns":{},"listen":{"kms":{"port":"x"}}}')
    const { code, out, err } = await runHsmgate(['check', '--config', file])
    expect([code, out]).toEqual([1, ''])
    expect(err.match(/^\S.*$/gm)).toEqual([
      expect.stringMatching(/^tokens: /),
      expect.stringMatching(/^tokns: /),
      expect.stringMatching(/^listen\.kms\.port: /),
    ])
    expect(err.match(/^ {2}remedy: /gm)).toHaveLength(3)
  })

  it('names the files that the configuration names and that are missing', async () => {
    await writeFile(file, '{"tokens":{"a":{"module":"/none.so","label":"l","pinFile":"pin"}}}')
    const { code, err } = await runHsmgate(['check', '--config', file, '--json'])
    expect(code).toBe(1)
    expect(JSON.parse(err).problems.map(({ at }: { at: string }) => at)).toEqual([
      'tokens.a.module',
      'tokens.a.pinFile',
    ])
  })
})

describe('hsmgate principal policy put', () => {
  it('refuses a document that is missing or far too large before it asks the gateway', async () => {
    const words = ['principal', 'policy', 'put', 'bob', '--policy-name', 'p', '--document']
    expect(await runHsmgate([...words, path.join(folder, 'none')])).toMatchObject({ code: 1 })
    expect((await runHsmgate([...words, '-'], ' '.repeat(70_000))).err).toContain('too long')
    await writeFile(file, ' '.repeat(70_000))
    expect((await runHsmgate([...words, file])).err).toContain('holds more than 65536 bytes')
  })
})

describe('hsmgate audit verify', () => {
  const directory = () => path.join(folder, 'audit')
  const segment = () => path.join(directory(), '00000001.jsonl')

  async function writeJournal(): Promise<void> {
    await using journal = await openJournal({
      directory: directory(),
      durability: 'kernel',
      segmentBytes: 1e6,
      reserveBytes: 0,
      alarmFreeBytes: 0,
      checkpointRecords: 100,
      checkpointMinutes: 60,
      lockFile: loadAddon().lockFile,
    } as Parameters<typeof openJournal>[0])
    for (const name of ['One', 'Two', 'Three']) {
      await journal.appendEvent({ name, account: '000000000000', region: 'us-east-1', details: {} })
    }
  }

  it('accepts a journal as it was written, by folder and by segment', async () => {
    await writeJournal()
    const { code, out, err } = await runHsmgate(['audit', 'verify', directory()])
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(/^journal {6}whole\nrecords {6}\d+ \(1 to \d+\) in 1 segments\n/)
    const json = await runHsmgate(['audit', 'verify', segment(), '--json'])
    expect(JSON.parse(json.out)).toMatchObject({ ok: true, segments: 1, problems: [] })
  })

  it('fails on a journal that was changed, and says where', async () => {
    await writeJournal()
    await writeFile(segment(), (await readFile(segment(), 'utf8')).replace('"Two"', '"Tow"'))
    const { code, out, err } = await runHsmgate(['audit', 'verify', directory()])
    expect(code).toBe(1)
    expect(out).toMatch(/^journal {6}NOT WHOLE\n/)
    expect(out).toMatch(/problem: 00000001\.jsonl:\d+: record \d+ was changed/)
    expect(err).toContain('this is not the whole journal as it was written')
  })

  it('misses records at the end only when nobody kept an anchor', async () => {
    await writeJournal()
    const lines = (await readFile(segment(), 'utf8')).trimEnd().split('\n')
    await writeFile(path.join(folder, 'anchor'), `${lines.at(-1)}\n`)
    await writeFile(segment(), `${lines.slice(0, -1).join('\n')}\n`)
    expect(await runHsmgate(['audit', 'verify', directory()])).toMatchObject({ code: 0 })
    for (const anchor of [path.join(folder, 'anchor'), lines.at(-1)!]) {
      const { code, out } = await runHsmgate(['audit', 'verify', directory(), '--anchor', anchor])
      expect(code).toBe(1)
      expect(out).toContain('it was cut off')
    }
  })

  it.each([
    ['a folder that is missing', ['none']],
    ['an anchor that is missing', ['audit', '--anchor', 'none']],
    ['an anchor that is none', ['audit', '--anchor', '{}']],
    ['a key that is missing', ['audit', '--public-key', 'none']],
    ['a key that is none', ['audit', '--public-key', 'audit/00000001.jsonl']],
    ['two folders', ['audit', 'audit']],
  ])('fails on %s with cause and remedy', async (_name, words) => {
    await writeJournal()
    const isPath = (word: string) => !word.startsWith('-') && !word.startsWith('{')
    const { code, err } = await runHsmgate([
      'audit',
      'verify',
      ...words.map((word) => (isPath(word) ? path.join(folder, word) : word)),
    ])
    expect(code).toBe(1)
    expect(err).toMatch(/^.+: .+\n {2}remedy: .+\n$/)
  })
})
