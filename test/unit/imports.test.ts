import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  findBarrelsAndDefaults,
  findCycles,
  findFoldersWithTwoFaces,
  findImports,
  findMissingFiles,
  findPackagesOutOfPlace,
  findPoorNames,
  findStrangersThatMeet,
  readSources,
} from '../support/import-rules.ts'

const checkout = path.resolve(import.meta.dirname, '../..')
const sources = readSources(checkout, ['src', 'softhsm'])
const { dependencies } = JSON.parse(readFileSync(path.join(checkout, 'package.json'), 'utf8'))
const tree = (files: Record<string, string>) => new Map(Object.entries(files))

describe('the source', () => {
  it('imports only files that exist, by their full name', () => {
    expect(sources.size).toBeGreaterThan(0)
    expect(findMissingFiles(sources)).toEqual([])
  })

  it('imports only its dependencies, each in its own field', () => {
    expect(findPackagesOutOfPlace(sources, Object.keys(dependencies))).toEqual([])
  })

  it('keeps the doors strangers to each other', () => {
    expect(findStrangersThatMeet(sources)).toEqual([])
  })

  it('gives each folder one face', () => {
    expect(findFoldersWithTwoFaces(sources)).toEqual([])
  })

  it('has no cycles', () => {
    expect(findCycles(sources)).toEqual([])
  })

  it('has no barrels and no default exports', () => {
    expect(findBarrelsAndDefaults(sources)).toEqual([])
  })

  it('names files for what they own', () => {
    expect(findPoorNames(sources)).toEqual([])
  })
})

describe('the import rules', () => {
  it('see every form of import, and none in comments', () => {
    const text = [
      "import type { A } from './a.ts'",
      "import {\n  type B,\n  b,\n} from './b.ts'",
      "import './c.ts'",
      "export { d } from './d.ts'",
      "const e = await import('./e.ts')",
      "const f = createRequire(import.meta.url)('./f.node')",
      "// import './no.ts'",
      "/* import './no.ts' */",
      "const url = 'https://example.com' // import './no.ts'",
    ].join('\n')
    const found = findImports(tree({ 'src/x/y.ts': text })).map(({ target }) => target)
    expect(found.sort()).toEqual(['a.ts', 'b.ts', 'c.ts', 'd.ts', 'e.ts', 'f.node'].map((name) => `src/x/${name}`))
  })

  it('catch an import without its ending', () => {
    expect(findMissingFiles(tree({ 'src/a.ts': "import './b'", 'src/b.ts': '' }))).toHaveLength(1)
  })

  it('catch a package outside its field, an undeclared one and a Node module without its prefix', () => {
    const text =
      "import fastify from 'fastify'\nimport got from 'got'\nimport fs from 'fs'\nimport { x } from 'node:fs'"
    const files = tree({ 'src/keys/a.ts': text, 'src/transport/kms/b.ts': "import fastify from 'fastify'" })
    expect(findPackagesOutOfPlace(files, ['fastify'])).toEqual([
      'src/keys/a.ts imports fastify, which belongs to src/transport/',
      'src/keys/a.ts imports got, which is no dependency',
      "src/keys/a.ts imports 'fs' without node:",
    ])
  })

  it('catch one door that imports another', () => {
    const files = tree({ 'src/transport/xks/a.ts': "import { b } from '../kms/b.ts'", 'src/transport/kms/b.ts': '' })
    expect(findStrangersThatMeet(files)).toHaveLength(1)
  })

  it('catch a second face, but let a folder use what stands above it', () => {
    const files = tree({
      'src/audit/chain.ts': "import './parts/one.ts'\nimport './parts/two.ts'",
      'src/keys/a.ts': "import '../audit/audit.ts'\nimport '../call.ts'",
      'src/cli/b.ts': "import '../audit/chain.ts'",
      'src/audit/audit.ts': "import './segment.ts'\nimport '../call.ts'",
      'src/audit/segment.ts': '',
      'src/call.ts': '',
      'src/error.ts': '',
    })
    expect(findFoldersWithTwoFaces(files)).toEqual([])
    const worse = new Map([...files, ['src/authorize/c.ts', "import '../audit/segment.ts'"]])
    expect(findFoldersWithTwoFaces(worse)).toEqual([
      'src/audit/ has more than one face: audit.ts (for src/keys/a.ts), segment.ts (for src/authorize/c.ts)',
    ])
  })

  it('catch a cycle, types included', () => {
    const files = tree({
      'src/a.ts': "import { b } from './b.ts'",
      'src/b.ts': "import { c } from './c.ts'",
      'src/c.ts': "import type { A } from './a.ts'",
    })
    expect(findCycles(files)).toEqual(['src/a.ts → src/b.ts → src/c.ts → src/a.ts'])
  })

  it('catch barrels and default exports', () => {
    const files = tree({
      'src/index.ts': '',
      'src/a.ts': "export * from './b.ts'",
      'src/b.ts': "export type {\n  C,\n} from './c.ts'",
      'src/c.ts': 'export default function c() {}',
      'src/d.ts': 'export type D = { from: string }\nexport const d = 1',
    })
    expect(findBarrelsAndDefaults(files)).toHaveLength(4)
  })

  it('catch names that say nothing', () => {
    expect(findPoorNames(tree({ 'src/key-utils.ts': '', 'src/keyStore.ts': '', 'src/key-store.ts': '' }))).toHaveLength(
      2,
    )
  })
})
