/**
 * The rules of who may import whom, as functions from a set of source files to violations in words. They read text only, so a
 * made-up tree can show that each rule catches what it is there for.
 *
 * Types count like values: what a file knows of is what it imports.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import path from 'node:path'

/** Source text by path, relative to the checkout and with `/`. */
export type SourceTree = ReadonlyMap<string, string>

export interface Import {
  readonly from: string
  readonly specifier: string
  /** The imported file, relative to the checkout; undefined for packages and Node's own modules. */
  readonly target: string | undefined
}

/** Packages that stand for a field of work, and the only places that do that work. */
export const homeOfPackage: Readonly<Record<string, readonly string[]>> = {
  'graphene-pk11': ['src/hsm/worker/', 'src/cli/doctor.ts'],
  pkcs11js: ['src/hsm/worker/', 'src/cli/doctor.ts'],
  fastify: ['src/transport/'],
  pino: ['src/observe/'],
  'prom-client': ['src/observe/'],
  kysely: ['src/catalog/'],
  'better-sqlite3': ['src/catalog/'],
  pg: ['src/catalog/'],
}

/** Doors that speak different protocols and must stay strangers. */
export const strangers: readonly string[] = ['src/transport/kms/', 'src/transport/xks/', 'src/transport/offload/']

/** Folders inside another that have a face of their own; any other folder inside a folder is a private part of it. */
export const housesInHouses: readonly RegExp[] = [/^src\/hsm\/worker\//, /^src\/transport\/[^/]+\//]

/**
 * Files that put the parts together: beside a folder's face they may import the file that opens its implementation. The relay is a program of
 * its own, made of parts of the offload door: its frames, its connections and its sockets.
 */
export const compositionRoots: readonly string[] = [
  'src/gateway.ts',
  'src/key-stores.ts',
  'src/main.ts',
  'src/cli/',
  'src/relay/',
]

/** Files that other folders import although another file is the folder's face, each with its reason. */
export const besideTheFace: Readonly<Record<string, string>> = {
  'src/authenticate/sign-request.ts': 'signs what the gateway itself sends to others; the face is about who comes in',
  'src/hsm/worker/addon.ts':
    'the face of native/addon, which also offers peer credentials and the lock on a state folder',
  'src/hsm/events.ts':
    'what the HSM layer tells its observer: the one thing that src/observe implements instead of using',
  'src/authenticate/tls-bindings.ts':
    'what the tokens of the signing socket stand for: the endpoint looks them up itself, one after another as they are presented',
}

export function readSources(root: string, folders: readonly string[]): SourceTree {
  const tree = new Map<string, string>()
  for (const folder of folders) {
    for (const entry of readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith('.ts')) continue
      const file = path.join(entry.parentPath, entry.name)
      tree.set(path.relative(root, file).split(path.sep).join('/'), readFileSync(file, 'utf8'))
    }
  }
  return tree
}

const importForms: readonly RegExp[] = [
  // import … from 'x', export … from 'x', import 'x'; names may span lines but hold no quote or parenthesis
  /^[ \t]*(?:import|export)\b(?:[^'"`();=]*?\bfrom)?\s*['"]([^'"\n]+)['"]/gm,
  /\b(?:import|require)\(\s*['"]([^'"\n]+)['"]/g,
  /\bcreateRequire\(import\.meta\.url\)\(\s*['"]([^'"\n]+)['"]/g,
]

export function findImports(tree: SourceTree): Import[] {
  const imports: Import[] = []
  for (const [from, text] of tree) {
    for (const form of importForms) {
      for (const [, specifier] of withoutComments(text).matchAll(form)) {
        const isFile = /^\.\.?\//.test(specifier!)
        const target = isFile ? path.posix.join(path.posix.dirname(from), specifier!) : undefined
        imports.push({ from, specifier: specifier!, target })
      }
    }
  }
  return imports
}

export function findMissingFiles(tree: SourceTree): string[] {
  return findImports(tree)
    .filter(({ target }) => target?.startsWith('src/') && !tree.has(target))
    .map(({ from, specifier }) => `${from} imports '${specifier}', which is no file`)
}

export function findPackagesOutOfPlace(tree: SourceTree, dependencies: readonly string[]): string[] {
  const violations: string[] = []
  for (const { from, specifier, target } of findImports(tree)) {
    if (target !== undefined || specifier.startsWith('node:')) continue
    const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
    const homes = Object.hasOwn(homeOfPackage, name) ? homeOfPackage[name]! : ['']
    if (builtinModules.includes(name)) violations.push(`${from} imports '${specifier}' without node:`)
    else if (!dependencies.includes(name)) violations.push(`${from} imports ${name}, which is no dependency`)
    else if (!homes.some((home) => from.startsWith(home))) {
      violations.push(`${from} imports ${name}, which belongs to ${homes.join(' and ')}`)
    }
  }
  return violations
}

export function findStrangersThatMeet(tree: SourceTree): string[] {
  const doorOf = (file: string | undefined) => strangers.find((door) => file?.startsWith(door))
  return findImports(tree)
    .filter(({ from, target }) => doorOf(from) && doorOf(target) && doorOf(from) !== doorOf(target))
    .map(({ from, target }) => `${from} imports ${target}, of another door`)
}

/** The folder whose face a file is or hides behind, e.g. `src/keys/`; undefined for the files directly in `src`. */
function houseOf(file: string): string | undefined {
  const nested = housesInHouses.map((pattern) => pattern.exec(file)?.[0]).find((house) => house !== undefined)
  return nested ?? /^[^/]+\/[^/]+\//.exec(file)?.[0]
}

/** A folder's outsiders are all files but those in it and below it. */
export function findFoldersWithTwoFaces(tree: SourceTree): string[] {
  const faces = new Map<string, Map<string, string>>()
  for (const { from, target } of findImports(tree)) {
    if (target === undefined || Object.hasOwn(besideTheFace, target)) continue
    const house = houseOf(target)
    if (house === undefined || from.startsWith(house)) continue
    if (compositionRoots.some((root) => from.startsWith(root))) continue
    if (!faces.has(house)) faces.set(house, new Map())
    faces.get(house)!.set(target, from)
  }
  return [...faces]
    .filter(([, files]) => files.size > 1)
    .map(([house, files]) => {
      const list = [...files].map(([file, importer]) => `${file.slice(house.length)} (for ${importer})`)
      return `${house} has more than one face: ${list.sort().join(', ')}`
    })
}

export function findCycles(tree: SourceTree): string[] {
  const targets = new Map<string, string[]>()
  for (const { from, target } of findImports(tree)) {
    if (target !== undefined && tree.has(target)) targets.set(from, [...(targets.get(from) ?? []), target])
  }
  const cycles = new Set<string>()
  const done = new Set<string>()
  const trail: string[] = []
  const visit = (file: string): void => {
    const at = trail.indexOf(file)
    if (at >= 0) cycles.add([...trail.slice(at), file].join(' → '))
    if (at >= 0 || done.has(file)) return
    trail.push(file)
    for (const target of targets.get(file) ?? []) visit(target)
    trail.pop()
    done.add(file)
  }
  for (const file of tree.keys()) visit(file)
  return [...cycles]
}

/** A barrel passes on what other files own, so that its importers depend on all of them. */
export function findBarrelsAndDefaults(tree: SourceTree): string[] {
  const violations: string[] = []
  for (const [file, text] of tree) {
    const code = withoutComments(text)
    if (/(^|\/)index\.ts$/.test(file)) violations.push(`${file}: index.ts is a barrel's name`)
    if (/^[ \t]*export\s+(type\s+)?(\*|\{[^}]*\}\s*from\b)/m.test(code)) {
      violations.push(`${file} re-exports what another file owns`)
    }
    if (/^[ \t]*export\s+(default\b|\{[^}]*\bas\s+default\b)/m.test(code)) {
      violations.push(`${file} has a default export`)
    }
  }
  return violations
}

// `shared secret` is a term of key agreement (SEC 1, section 3.3), and a KMS operation is named for it.
const wordsThatSayNothing = /(^|-)(utils?|helpers?|manager|misc|info|common|shared(?!-secret)|lib)($|-)/

export function findPoorNames(tree: SourceTree): string[] {
  const violations = new Set<string>()
  for (const file of tree.keys()) {
    for (const part of file.replace(/(\.d)?\.ts$/, '').split('/')) {
      if (wordsThatSayNothing.test(part)) violations.add(`${file}: '${part}' does not say what it owns`)
      if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(part)) violations.add(`${file}: '${part}' is not kebab-case`)
    }
  }
  return [...violations]
}

/** Comments may show imports as examples. A `//` inside a string ends that line early, which hides no import. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')
}
