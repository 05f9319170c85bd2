/**
 * Keeps docs/kms-compatibility.md true: after a run of all conformance tests of the KMS door that passed, the tables of the page are rendered
 * from what these tests did. The run fails when the page differs; `npm run docs` writes it. Other runs are let alone.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import type { Reporter, TestModule } from 'vitest/node'
import { operationNotes } from './compatibility-notes.ts'
import { renderTable, renderTraps, replaceBetweenMarkers } from './compatibility-page.ts'
import { collectObservations, observationFolder } from './observed-operations.ts'

const root = path.resolve(import.meta.dirname, '../..')
const page = path.join(root, 'docs/kms-compatibility.md')
const conformance = path.join(root, 'test/conformance/kms')
const trapCount = 60

export default class CompatibilityReporter implements Reporter {
  #folder: string | undefined

  onInit(): void {
    this.#folder = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-observations-'))
    process.env[observationFolder] = this.#folder
    const { [observationFolder]: folder } = process.env
    process.once('exit', () => rmSync(folder as string, { recursive: true, force: true }))
  }

  async onTestRunEnd(modules: readonly TestModule[]): Promise<void> {
    const ran = modules.filter(({ moduleId }) => path.dirname(moduleId) === conformance)
    const files = (await readdir(conformance)).filter((name) => name.endsWith('.test.ts'))
    const tests = ran.flatMap((module) => [...module.children.allTests()])
    const isWhole = ran.length === files.length && tests.every((test) => test.result().state === 'passed')
    if (!isWhole || this.#folder === undefined || !ran.every((module) => module.ok())) return
    const titles = tests.map(({ name }) => name)
    const stands = await readFile(page, 'utf8')
    let rendered: string
    try {
      const table = renderTable(await collectObservations(this.#folder), operationNotes)
      rendered = replaceBetweenMarkers(stands, 'operations', table)
      rendered = replaceBetweenMarkers(rendered, 'traps', renderTraps(titles, trapCount))
    } catch (cause) {
      return fail(`docs/kms-compatibility.md can not be rendered: ${(cause as Error).message}`)
    }
    if (rendered === stands) return
    if (process.env.HSMGATE_WRITE_DOCS === undefined) {
      return fail('docs/kms-compatibility.md differs from what the tests did; npm run docs writes it')
    }
    await writeFile(page, rendered)
    process.stdout.write('docs/kms-compatibility.md is written anew\n')
  }
}

function fail(text: string): void {
  process.stderr.write(`\n${text}\n`)
  process.exitCode = 1
}
