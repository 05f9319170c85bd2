/**
 * A gateway's writes without the gateway: `node catalog-writer.ts <file> <count>` finishes `count` keys, two at a time, and prints
 * the id of each when the catalog has acknowledged it. It never closes the catalog.
 */
import { openCatalog } from '../../src/catalog/open.ts'
import { enabledKey, newKey, softwareSeal } from './catalog.ts'

const [file, count] = process.argv.slice(2)
const catalog = await openCatalog({ kind: 'sqlite', file: file! })
catalog.useSeal(softwareSeal())

const writeKeys = async () => {
  for (let left = Number(count) / 2; left > 0; left--) {
    const { key } = await enabledKey(catalog, newKey({}, { tags: { a: '1' } }))
    process.stdout.write(`${key.keyId}\n`)
  }
}
await Promise.all([writeKeys(), writeKeys()])
