/**
 * Reads the configuration file: schema with defaults, paths, references between sections, safety of listeners. All problems of
 * the file are reported at once. Pure but for reading the file; files that it names are looked at by files.ts.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { type Problem, ProblemsError } from '../problem.ts'
import { type Config, isLoopback } from './config.ts'
import { parseSections } from './parse.ts'
import { type Sections, sections } from './sections/sections.ts'

type Mutable<T> = T extends object ? { -readonly [K in keyof T]: Mutable<T[K]> } : T
type Environment = Readonly<Record<string, string | undefined>>

/** Where the file is looked for: the given path, `HSMGATE_CONFIG`, `.hsmgate/config.json` here, /etc/hsmgate/config.json. */
export function configPaths(given: string | undefined, environment: Environment = process.env): readonly string[] {
  const named = given ?? environment.HSMGATE_CONFIG
  return named ? [path.resolve(named)] : [path.resolve('.hsmgate/config.json'), '/etc/hsmgate/config.json']
}

/**
 * The configuration in the first of `paths` that exists.
 * @throws ProblemsError with every problem of the file.
 */
export function loadConfig(paths: readonly string[], environment: Environment = process.env): Config {
  for (const file of paths) {
    let text: string
    try {
      text = readFileSync(file, 'utf8')
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (code === 'ENOENT' && paths.length > 1) continue
      throw new ProblemsError([unreadable(file, code)], { cause })
    }
    return parseConfig(text, file, environment)
  }
  throw new ProblemsError([
    {
      at: paths.join(' or '),
      cause: 'no configuration file is there',
      remedy: 'run `hsmgate init`, or name a file with --config or HSMGATE_CONFIG',
    },
  ])
}

/** @throws ProblemsError with every problem of the text. */
export function parseConfig(text: string, file: string, environment: Environment = process.env): Config {
  const document = parseJson(text, file)
  const { values, problems } = parseSections(document, path.dirname(file))
  if (problems.length > 0) throw new ProblemsError(problems)

  const config = complete(values as Mutable<Sections>, file, environment)
  const found = [
    ...checkSections(config),
    ...checkGroups(config),
    ...checkListeners(config),
    ...checkClusters(config),
    ...checkServer(config),
  ]
  if (found.length > 0) throw new ProblemsError(found)
  return deepFreeze(config)
}

/** @throws ProblemsError that says where the syntax is wrong and quotes nothing. */
export function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new ProblemsError([{ at: file, cause: `is not JSON${placeOf(text)}`, remedy: 'correct the syntax there' }], {
      cause,
    })
  }
}

/** Fills in the defaults that depend on other keys. */
function complete(values: Mutable<Sections>, file: string, environment: Environment): Config {
  const stateDirectory = values.development ? path.dirname(file) : (environment.STATE_DIRECTORY ?? '/var/lib/hsmgate')
  const runDirectory = values.development
    ? path.join(stateDirectory, 'run')
    : (environment.RUNTIME_DIRECTORY ?? '/run/hsmgate')
  const { listen, catalog, audit } = values
  listen.operator.socket ??= path.join(runDirectory, 'operator.sock')
  if (listen.offload) listen.offload.socket ??= path.join(runDirectory, 'sign.sock')
  if (catalog.kind === 'sqlite') catalog.file ??= path.join(stateDirectory, 'catalog.sqlite')
  audit.directory ??= path.join(stateDirectory, 'audit')

  const tokenNames = Object.keys(values.tokens).filter((name) => values.tokens[name]?.clusterId === undefined)
  values.groups ??= tokenNames.length === 1 ? { default: { tokens: tokenNames } } : {}
  const groupNames = Object.keys(values.groups)
  values.defaultGroup ??= groupNames.length === 1 ? groupNames[0]! : ''
  return { file, stateDirectory, runDirectory, ...values }
}

function checkSections(config: Config): readonly Problem[] {
  return Object.entries(sections).flatMap(([key, section]) => {
    const check = section.check as ((value: unknown, at: string) => readonly Problem[]) | undefined
    return check?.(config[key as keyof Sections], key) ?? []
  })
}

function checkGroups({ groups, tokens, defaultGroup }: Config): readonly Problem[] {
  const problems: Problem[] = []
  const groupOfToken = new Map<string, string>()
  for (const [name, group] of Object.entries(groups)) {
    for (const token of group.tokens) {
      const at = `groups.${name}.tokens`
      const other = groupOfToken.get(token)
      if (!Object.hasOwn(tokens, token)) {
        problems.push({ at, cause: `there is no token '${token}'`, remedy: `describe it under tokens.${token}` })
      } else if (tokens[token]?.clusterId !== undefined) {
        const remedy = `remove it here, or remove tokens.${token}.clusterId`
        problems.push({ at, cause: `token '${token}' belongs to custom key stores`, remedy })
      } else if (other !== undefined) {
        const remedy = 'give each group a token entry of its own, with a crypto user of its own'
        problems.push({ at, cause: `token '${token}' is already in group '${other}'`, remedy })
      }
      groupOfToken.set(token, name)
    }
  }
  if (Object.keys(groups).length === 0 && Object.keys(tokens).length > 0) {
    problems.push({
      at: 'groups',
      cause: 'is empty, and with several tokens the groups cannot be guessed',
      remedy: 'name the groups and their tokens',
    })
  } else if (!Object.hasOwn(groups, defaultGroup)) {
    const cause =
      defaultGroup === '' ? 'is missing, and there are several groups' : `there is no group '${defaultGroup}'`
    problems.push({ at: 'defaultGroup', cause, remedy: `name one of: ${Object.keys(groups).join(', ')}` })
  }
  return problems
}

/** Who may create custom key stores could otherwise claim the token, and spend its attempts at a PIN. */
function checkClusters({ tokens, development }: Config): readonly Problem[] {
  if (development) return []
  return Object.entries(tokens).flatMap(([name, { clusterId, trustAnchorFile }]) =>
    clusterId === undefined || trustAnchorFile !== undefined
      ? []
      : [
          {
            at: `tokens.${name}.trustAnchorFile`,
            cause: 'is missing: any principal with kms:CreateCustomKeyStore could claim this cluster',
            remedy: 'name the certificate that a store must present as its trust anchor',
          },
        ],
  )
}

function checkListeners({ listen, insecure }: Config): readonly Problem[] {
  const problems: Problem[] = []
  const takenBy = new Map<string, string>()
  const listeners = [
    ['listen.kms', listen.kms],
    ['listen.xks', listen.xks],
    ['listen.relay', listen.relay],
    ['listen.operator.http', listen.operator.http],
  ] as const
  for (const [at, listener] of listeners) {
    if (!listener) continue
    const place = `${listener.address}:${listener.port}`
    const other = takenBy.get(place)
    if (other !== undefined && listener.port !== 0) {
      problems.push({ at, cause: `${place} is also ${other}'s`, remedy: 'give each door a port of its own' })
    }
    takenBy.set(place, at)
    if (listener.tls || isLoopback(listener.address) || insecure) continue
    problems.push({
      at,
      cause: `would serve plain HTTP on ${listener.address}`,
      remedy: 'add tls, bind 127.0.0.1, or set insecure to true when TLS ends in front of this machine',
    })
  }
  return problems
}

/** Policies and the names of keys and users are nobody's business on the way to the database, and a password might be on it. */
function checkServer({ catalog, insecure }: Config): readonly Problem[] {
  if (catalog.kind !== 'postgresql' || catalog.postgresql === undefined) return []
  const { host, tls } = catalog.postgresql
  const isNear = host.startsWith('/') || isLoopback(host)
  if (isNear || tls !== undefined || insecure) return []
  return [
    {
      at: 'catalog.postgresql.tls',
      cause: `is missing, and ${host} is another machine`,
      remedy:
        'add it ({} trusts the authorities of the system), or set insecure to true when something else protects the way',
    },
  ]
}

function unreadable(file: string, code: string | undefined): Problem {
  if (code === 'ENOENT') {
    return { at: file, cause: 'does not exist', remedy: 'run `hsmgate init`, or name another file with --config' }
  }
  const remedy = code === 'EACCES' ? 'run as a user that may read it' : 'name a readable file with --config'
  return { at: file, cause: `cannot be read (${code ?? 'unknown error'})`, remedy }
}

/**
 * Line and column of a JSON syntax error. The parser's own message often has neither, and quotes the file, which might hold a
 * misplaced secret; so the shortest text that is wrong before its end is searched for.
 */
function placeOf(text: string): string {
  if (text.trim() === '') return ': it is empty'
  if (!isWrongBeforeItsEnd(text)) return ': it ends too early'
  let right = 0
  let wrong = text.length
  while (wrong - right > 1) {
    const middle = (right + wrong) >> 1
    if (isWrongBeforeItsEnd(text.slice(0, middle))) wrong = middle
    else right = middle
  }
  const before = text.slice(0, wrong - 1).split('\n')
  return ` (line ${before.length}, column ${before.at(-1)!.length + 1})`
}

function isWrongBeforeItsEnd(text: string): boolean {
  try {
    JSON.parse(text)
    return false
  } catch (error) {
    const message = String(error)
    const position = /at position (\d+)/.exec(message)?.[1]
    if (/Unexpected end of JSON|Unterminated string/.test(message)) return false
    return position === undefined || Number(position) < text.length
  }
}

export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) deepFreeze(member)
    Object.freeze(value)
  }
  return value
}
