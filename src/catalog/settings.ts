/** Small named values that belong to the whole catalog. */
import type { Catalog } from './catalog.ts'
import type { Ports } from './ports.ts'
import { everyRegion } from './tables.ts'

const everyAccount = '*'

export function openSettings({ database, queue }: Ports) {
  const db = database.sql
  return {
    async getSetting(name) {
      const [[row]] = await database.read([
        db
          .selectFrom('setting')
          .select('value')
          .where('account', '=', everyAccount)
          .where('region', '=', everyRegion)
          .where('name', '=', name)
          .compile(),
      ])
      return row?.value
    },

    async putSetting(name, value) {
      await queue.write(async (revision) => {
        const query = db
          .insertInto('setting')
          .values({ account: everyAccount, region: everyRegion, name, value, revision })
          .onConflict((conflict) => conflict.columns(['account', 'region', 'name']).doUpdateSet({ value, revision }))
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: [{ table: 'setting', name }],
          result: undefined,
        }
      })
    },
  } satisfies Partial<Catalog>
}
