/**
 * `node catalog-on-slow-disk.ts <file>`: counts what a gateway still does while it writes five times to a slow disk, and prints it as
 * JSON. Cold reads go to the database; turns are rounds of the event loop.
 */
import { openCatalog } from '../../src/catalog/open.ts'
import { enabledKey, softwareSeal } from './catalog.ts'

await using catalog = await openCatalog({ kind: 'sqlite', file: process.argv[2]! })
catalog.useSeal(softwareSeal())
const { key } = await enabledKey(catalog)

let isWriting = true
let coldReads = 0
let turns = 0
const started = performance.now()

const write = async () => {
  for (let count = 0; count < 5; count++) await catalog.updateKey(key, { description: String(count) })
  isWriting = false
}
const read = async () => {
  while (isWriting) {
    await catalog.listKeys(key.account, key.region, undefined, 10)
    coldReads++
  }
}
const turn = async () => {
  while (isWriting) {
    await new Promise((resolve) => setImmediate(resolve))
    turns++
  }
}
await Promise.all([write(), read(), turn()])
process.stdout.write(JSON.stringify({ writingMs: performance.now() - started, coldReads, turns }))
