/** A diagnosis as `hsmgate doctor` shows it: JSON for machines, a page for people. Pure. */

import type { Diagnosis } from '../hsm/diagnosis.ts'
import type { Limit, Measurement, ModuleFacts } from '../hsm/examination.ts'
import type { Capabilities, ObjectSummary } from '../hsm/port.ts'
import { weaknessesOf } from '../keys/weakness.ts'
import { judgeKeySpecs, type KeySpecVerdict } from './key-spec-verdicts.ts'
import { formatFields, formatTable, printable } from './terminal.ts'

export interface ReportedObject {
  /** CKA_ID in hex. */
  readonly objectId: string
  readonly label: string
  readonly objectClass: string
  readonly spec: string | null
  readonly extractable: boolean
  readonly sensitive: boolean
  readonly private: boolean
  /** Made by hsmgate, as its label says. */
  readonly ours: boolean
  readonly weaknesses: readonly string[]
}

export type Report = Omit<Diagnosis, 'objects'> & {
  readonly keySpecs?: readonly KeySpecVerdict[]
  readonly objects?: readonly ReportedObject[]
}

export function reportOf({ objects, ...diagnosis }: Diagnosis): Report {
  const { capabilities } = diagnosis
  return {
    ...diagnosis,
    ...(capabilities && { keySpecs: judgeKeySpecs(capabilities) }),
    ...(objects && { objects: objects.map(reportObject) }),
  }
}

function reportObject(object: ObjectSummary): ReportedObject {
  const { objectId, label, objectClass, spec, extractable, sensitive, isPrivate } = object
  return {
    objectId: Buffer.from(objectId).toString('hex'),
    label,
    objectClass,
    spec: spec ?? null,
    extractable,
    sensitive,
    private: isPrivate,
    ours: /^hsmgate(-[a-z]+)?:/.test(label),
    weaknesses: weaknessesOf(object),
  }
}

export function formatDiagnosis(report: Report): string {
  const { facts, capabilities, keySpecs, measurement, objects, warnings } = report
  const parts: (string | undefined)[] = [
    facts && section('module', formatModule(report.module, facts)),
    facts && section(facts.token === undefined ? 'tokens' : 'token', formatToken(facts)),
    facts?.token && section('mechanisms listed', formatMechanisms(facts)),
    facts?.token && section('login', formatLogin(report)),
    capabilities && section('tried, and verified in software', formatCapabilities(capabilities)),
    keySpecs && section('key specs of the KMS API', formatKeySpecs(keySpecs)),
    measurement && section('initialisation vectors of AES-GCM', formatIvs(measurement, capabilities)),
    measurement && section('several sessions at once', formatConcurrency(measurement)),
    measurement && section('rates', formatRates(report, measurement)),
    objects && section('objects', formatObjects(objects)),
    warnings.length > 0
      ? section(
          'to know',
          warnings
            .map(
              (warning) =>
                `${printable(warning.at)}: ${printable(warning.cause)}\n  remedy: ${printable(warning.remedy)}\n`,
            )
            .join(''),
        )
      : undefined,
  ]
  return parts.filter((part) => part !== undefined).join('\n')
}

const section = (title: string, text: string): string => `${title}\n${indent(text)}`

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '  ')
}

function formatModule(file: string, facts: ModuleFacts): string {
  return formatFields([
    ['file', file],
    ['description', facts.description],
    ['manufacturer', facts.manufacturer],
    ['library', `version ${facts.libraryVersion}, Cryptoki ${facts.cryptokiVersion}, takes CKF_OS_LOCKING_OK`],
    ['slots', `${facts.slots}, ${facts.tokens.length} with a token`],
  ])
}

function formatToken({ token, tokens }: ModuleFacts): string {
  if (token === undefined) {
    const rows = tokens.map(({ label, serial, model, flags }) => [
      label,
      serial,
      model,
      flags.includes('TOKEN_INITIALIZED') ? 'yes' : 'no',
    ])
    return `${formatTable(['LABEL', 'SERIAL', 'MODEL', 'INITIALISED'], rows)}name one with --label or --serial to examine it\n`
  }
  return formatFields([
    ['label', token.label],
    ['serial', token.serial],
    ['maker', `${token.manufacturer}, ${token.model}, firmware ${token.firmware}`],
    ['slot', token.slot],
    ['flags', token.flags.join(' ')],
    ['sessions', `${limit(token.maxSessions)}, read-write ${limit(token.maxRwSessions)}`],
    ['free memory', token.freePrivateMemory === null ? 'not told' : `${token.freePrivateMemory} bytes`],
  ])
}

function limit(value: Limit): string {
  if (value === null) return 'limit not told'
  return value === 'none' ? 'no limit' : `at most ${value}`
}

function formatMechanisms({ mechanisms }: ModuleFacts): string {
  // those without a name, most of them vendors', last
  const [named, numbered] = [false, true].map((isNumber) =>
    mechanisms
      .map(({ name }) => name)
      .filter((name) => name.startsWith('0x') === isNumber)
      .sort(),
  )
  return wrap([...(named ?? []), ...(numbered ?? [])])
}

/** A list in lines of at most 110 columns. */
function wrap(words: readonly string[]): string {
  const lines: string[] = []
  let line = ''
  for (const word of words) {
    if (line !== '' && line.length + 2 + word.length > 110) {
      lines.push(`${line},`)
      line = ''
    }
    line = line === '' ? word : `${line}, ${word}`
  }
  return [...lines, line].map((text) => `${printable(text)}\n`).join('')
}

function formatLogin({ login }: Report): string {
  return `${printable(login.why === undefined ? login.state : `${login.state}: ${login.why}`)}\n`
}

const gcmIvTexts = { caller: 'the gateway gives it', module: 'the module makes it', none: 'no AES-GCM' } as const
const constructionTexts = {
  derived: 'by working keys derived in the module',
  direct: 'by the key itself: no derivation was proven, mind the 2^32 messages that a key with random IVs may encrypt',
  none: 'not at all',
} as const

function formatCapabilities({ algorithms, construction, gcmIv, oaepSha256, refused }: Capabilities): string {
  const fields = formatFields([
    ['symmetric keys seal', constructionTexts[construction]],
    ['IV of AES-GCM', gcmIvTexts[gcmIv]],
    ['OAEP with SHA-256', oaepSha256 === 'raw' ? 'raw RSA in the module, decoded by the worker' : oaepSha256],
  ])
  const reasons = formatTable(
    ['NOT OFFERED', 'WHY'],
    refused.map(({ what, why }) => [what, why]),
  )
  return `${fields}works\n${indent(wrap([...algorithms].sort()))}${refused.length > 0 ? reasons : ''}`
}

function formatKeySpecs(verdicts: readonly KeySpecVerdict[]): string {
  const rows = verdicts.map(({ spec, usages, refused }) => [
    spec,
    usages.length === 0 ? 'no' : usages.join(', '),
    refused.map(({ what, why }) => `${what}: ${why}`).join('; '),
  ])
  return formatTable(['SPEC', 'WORKS FOR', 'WHAT DOES NOT WORK, AND WHY'], rows)
}

const givenTexts = { used: 'used', ignored: 'IGNORED: the module uses another', refused: 'refused' } as const
const zeroTexts = {
  used: 'used without a word: a caller that leaves its IV empty repeats it',
  replaced: 'replaced by one that the module makes',
  refused: 'refused',
} as const
const madeTexts = {
  distinct: 'all different',
  repeated: 'REPEATED',
  zero: 'none: it encrypts under zeros',
  refused: 'refused',
} as const

function formatIvs({ ivs }: Measurement, capabilities: Capabilities | undefined): string {
  if (ivs === null) return 'no AES-GCM\n'
  return formatFields([
    ['given', givenTexts[ivs.given]],
    ['of zeros', zeroTexts[ivs.zero]],
    [`${ivs.drawn} made by the module`, madeTexts[ivs.made]],
    ['hsmgate', capabilities === undefined ? '-' : gcmIvTexts[capabilities.gcmIv]],
  ])
}

function formatConcurrency({ concurrency }: Measurement): string {
  const { sessions, operations, wrong, failed } = concurrency
  const refusals = Object.entries(failed).map(([name, count]) => `${count} ${name}`)
  return `${operations} operations on ${sessions} sessions: ${wrong} wrong answers, ${refusals.join(', ') || 'none'} refused\n`
}

function formatRates({ pool }: Report, { rates }: Measurement): string {
  const widths = rates[0]?.perSecond.map(({ sessions }) => `${sessions} SESSION${sessions === 1 ? '' : 'S'}`) ?? []
  const table = formatTable(
    ['A SECOND WITH', 'µS IN THE MODULE', ...widths],
    rates.map(({ what, hsmMicros, perSecond }) => [what, hsmMicros, ...perSecond.map(({ rate }) => rate)]),
  )
  if (pool === undefined) return table
  return `${table}suggested: workers ${pool.workers}, sessions ${pool.sessions} each (${pool.why})\n`
}

const shownObjects = 50

function formatObjects(objects: readonly ReportedObject[]): string {
  const keys = objects.filter(({ objectClass }) => objectClass !== 'public')
  const noted = objects.filter(({ weaknesses, ours }) => weaknesses.length > 0 || !ours)
  const head = `${keys.length} private and secret keys, ${keys.filter(({ ours }) => ours).length} of them hsmgate's\n`
  if (noted.length === 0) return `${head}none is weak or unknown\n`
  const rows = noted
    .slice(0, shownObjects)
    .map(({ objectClass, spec, label, objectId, ours, weaknesses }) => [
      objectClass,
      spec ?? 'no key spec',
      label,
      objectId,
      [...(ours ? [] : ["not hsmgate's"]), ...weaknesses].join(', '),
    ])
  const rest = noted.length - rows.length
  return `${head}${formatTable(['CLASS', 'SPEC', 'LABEL', 'OBJECT ID', 'NOTE'], rows)}${rest > 0 ? `and ${rest} more: --json lists all\n` : ''}`
}
