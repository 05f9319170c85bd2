/**
 * `hsmgate audit …`. `verify` checks a copy of the journal offline: everything found is printed; a journal that is not whole fails.
 * `checkpoint` has the running gateway sign its journal, and exports what `verify --anchor` takes.
 */
import { createPublicKey } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import type { Command } from 'commander'
import type { Checkpoint } from '../../audit/audit.ts'
import { type Anchor, parseAnchor, type Verification, verifyJournal } from '../../audit/verify.ts'
import { ProblemsError } from '../../problem.ts'
import { addAction } from '../action.ts'
import { loadEffectiveConfig } from '../effective-config.ts'
import { findText, replaceFile } from '../files.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, printable, show, type Terminal } from '../terminal.ts'

interface VerifyOptions {
  readonly anchor: readonly string[]
  readonly publicKey: readonly string[]
}

interface CheckpointOptions {
  readonly out?: string
}

const collect = (value: string, values: readonly string[]) => [...values, value]

export function addAudit(program: Command, terminal: Terminal): void {
  const audit = program.command('audit').description('the audit journal')

  const checkpoint = audit
    .command('checkpoint')
    .description(
      'sign the journal as it stands now; kept elsewhere, the checkpoint shows later whether records are missing',
    )
    .option('--out <file>', 'write the checkpoint to this file instead of standard output')
  addAction<CheckpointOptions, []>(checkpoint, async (options) => {
    const signed = await askGateway<Checkpoint>(options, terminal, 'audit', 'checkpoint')
    const text = `${JSON.stringify(signed)}\n`
    if (options.out === undefined) {
      terminal.out(text)
      return
    }
    const file = options.out
    await replaceFile(file, text).catch((cause) => {
      throw unwritable(file, cause)
    })
    const answer = { file, sequence: signed.sequence }
    show(terminal, options, answer, () => `signed through record ${signed.sequence}; written to ${printable(file)}\n`)
  })

  const verify = audit
    .command('verify')
    .description('check hashes, links and signatures of a journal; works offline')
    .argument('[paths...]', "the journal's folder, or its segments in order (default: the folder configured)")
    .option('--anchor <checkpoint>', 'a checkpoint kept elsewhere, as file or text; may be repeated', collect, [])
    .option('--public-key <file>', 'a key that may sign checkpoints, PEM or DER; may be repeated', collect, [])
  addAction<VerifyOptions, [readonly string[]]>(verify, async (options, paths) => {
    const named = paths.length > 0 ? paths : [loadEffectiveConfig(options, terminal).audit.directory]
    const anchors = (await Promise.all(options.anchor.map(loadAnchors))).flat()
    const publicKeys = await Promise.all(options.publicKey.map(loadPublicKey))
    const source = await chooseSource(named)
    const verification = await verifyJournal(source, {
      anchors,
      ...(publicKeys.length === 0 ? {} : { publicKeys }),
    }).catch((cause) => {
      throw unreadable(named.join(' '), cause)
    })
    show(terminal, options, verification, (found) =>
      formatVerification(found, anchors.length > 0, publicKeys.length > 0),
    )
    if (verification.ok) return
    const remedy =
      'keep this copy as evidence, and compare it with other copies and with the checkpoints kept elsewhere'
    throw new ProblemsError([{ at: named.join(' '), cause: 'this is not the whole journal as it was written', remedy }])
  })
}

async function chooseSource(paths: readonly string[]): Promise<string | readonly string[]> {
  const areFolders = await Promise.all(
    paths.map((file) =>
      stat(file).then(
        (stats) => stats.isDirectory(),
        (cause) => {
          throw unreadable(file, cause)
        },
      ),
    ),
  )
  if (!areFolders.includes(true)) return paths
  if (paths.length === 1) return paths[0]!
  const remedy = 'name one folder, or the segments of one journal in order'
  throw new ProblemsError([{ at: paths.join(' '), cause: 'is more than one journal', remedy }])
}

/** A file with one checkpoint or journal line, or with one on each line; or such a text itself. */
async function loadAnchors(word: string): Promise<readonly Anchor[]> {
  const text = word.trimStart().startsWith('{')
    ? word
    : await findText(word).catch((cause) => {
        throw unreadable(word, cause)
      })
  const whole = text === undefined ? undefined : parseAnchor(text)
  if (whole !== undefined) return [whole]
  const lines = (text ?? '').split('\n').filter((line) => line.trim() !== '')
  const anchors = lines.map(parseAnchor).filter((anchor) => anchor !== undefined)
  if (anchors.length > 0 && anchors.length === lines.length) return anchors
  const cause = text === undefined ? 'does not exist' : 'holds no checkpoint and no record of a journal'
  const at = text === word ? '--anchor' : word
  throw new ProblemsError([{ at, cause, remedy: 'give an exported checkpoint, or a line of the journal' }])
}

/** Base64 of the DER SubjectPublicKeyInfo, as checkpoints carry it. */
async function loadPublicKey(file: string): Promise<string> {
  const bytes = await readFile(file).catch((cause) => {
    throw unreadable(file, cause)
  })
  try {
    const isPem = bytes.includes('-----BEGIN')
    const key = isPem ? createPublicKey(bytes) : createPublicKey({ key: bytes, format: 'der', type: 'spki' })
    return key.export({ format: 'der', type: 'spki' }).toString('base64')
  } catch (cause) {
    const remedy = 'name a file with a public key as PEM, or its SubjectPublicKeyInfo as DER'
    throw new ProblemsError([{ at: file, cause: 'holds no public key', remedy }], { cause })
  }
}

function unwritable(file: string, cause: unknown): ProblemsError {
  const { code, message } = cause as NodeJS.ErrnoException
  const remedy = 'name a file in a folder that you may write to; the journal was signed all the same'
  return new ProblemsError([{ at: file, cause: `cannot be written (${code ?? message})`, remedy }], { cause })
}

function unreadable(file: string, cause: unknown): ProblemsError {
  const { code } = cause as NodeJS.ErrnoException
  const text = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? (cause as Error).message})`
  return new ProblemsError([{ at: file, cause: text, remedy: 'name a file or folder that is there' }], { cause })
}

function formatVerification(found: Verification, hasAnchor: boolean, hasKey: boolean): string {
  const { ok, segments, records, firstSequence, lastSequence, lastHash, checkpoints, signedThrough, publicKeys } = found
  const fields = formatFields([
    ['journal', ok ? 'whole' : 'NOT WHOLE'],
    ['records', records === 0 ? '0' : `${records} (${firstSequence} to ${lastSequence}) in ${segments} segments`],
    ['last hash', lastHash],
    ['checkpoints', `${checkpoints}, signed through record ${signedThrough}`],
    ...publicKeys.map((key) => ['signed by', key] as const),
  ])
  const findings = (name: string, list: Verification['problems']) =>
    list.map(({ at, text }) => `${name} ${printable(`${at}: ${text}`)}\n`)
  const hints = [
    ...(hasAnchor ? [] : ['note: without --anchor nobody can tell whether records are missing at the end\n']),
    ...(hasKey || publicKeys.length === 0 ? [] : ['note: without --public-key any signing key is accepted\n']),
  ]
  return [fields, ...findings('problem:', found.problems), ...findings('note:', found.notes), ...hints].join('')
}
