/**
 * The first tables. Primary keys begin with account and Region, every row has a revision, and instances and leases exist from the
 * start, so that several gateways can share one catalog later without moving a row.
 */
import { type CreateTableBuilder, sql } from 'kysely'
import type { Migration } from './migration.ts'

export const spineFirst: Migration = {
  name: '2026-11-21-spine-first',
  statements({ sql: db, columnTypes: { integer, text, bytes, tableEnd } }) {
    /** A column name that ends with `?` may be null. */
    const table = (
      name: string,
      columns: { readonly integer?: string; readonly text?: string; readonly bytes?: string },
      primaryKey: string,
      finish: (builder: CreateTableBuilder<string, string>) => CreateTableBuilder<string, string> = (builder) =>
        builder,
    ) => {
      let builder: CreateTableBuilder<string, string> = db.schema.createTable(name)
      for (const [type, names] of [
        [text, columns.text],
        [integer, columns.integer],
        [bytes, columns.bytes],
      ] as const) {
        for (const column of words(names)) {
          builder = builder.addColumn(column.replace('?', ''), sql`${type}`, (definition) =>
            column.endsWith('?') ? definition : definition.notNull(),
          )
        }
      }
      return finish(builder.addPrimaryKeyConstraint(`${name}_primary`, words(primaryKey) as [string]))
        .modifyEnd(tableEnd)
        .compile()
    }
    const ofKey = (builder: CreateTableBuilder<string, string>) =>
      builder.addForeignKeyConstraint('of_key', ['account', 'region', 'key_id'], 'key', ['account', 'region', 'key_id'])

    return [
      table(
        'key',
        {
          text: 'account region key_id spec usage origin purpose group custody state description extra parts',
          integer: 'multi_region created_at deletion_at? current_material adopted revision',
          bytes: 'hmac',
        },
        'account region key_id',
      ),
      db.schema.createIndex('key_by_deletion').on('key').columns(['state', 'deletion_at']).compile(),
      table(
        'material',
        {
          text: 'account region key_id state label? construction',
          integer: 'number created_at ordinal revision',
          bytes: 'object_id material_id public_key wrapped hmac',
        },
        'account region key_id number',
        ofKey,
      ),
      db.schema.createIndex('material_by_ordinal').on('material').column('ordinal').unique().compile(),
      db.schema.createIndex('material_by_state').on('material').column('state').compile(),
      table(
        'policy',
        { text: 'account region key_id name document', integer: 'revision', bytes: 'hmac' },
        'account region key_id name',
        ofKey,
      ),
      table(
        'tag',
        { text: 'account region key_id tag_key tag_value', integer: 'revision' },
        'account region key_id tag_key',
        ofKey,
      ),
      table(
        'alias',
        { text: 'account region name key_id', integer: 'created_at updated_at revision' },
        'account region name',
        ofKey,
      ),
      db.schema.createIndex('alias_by_key').on('alias').columns(['account', 'region', 'key_id', 'name']).compile(),
      table(
        'grant',
        {
          text: 'account region key_id grant_id name? grantee retiring? issuing_account operations constraints?',
          integer: 'created_at revision',
          bytes: 'hmac',
        },
        'account region key_id grant_id',
        ofKey,
      ),
      table(
        'principal',
        {
          text: 'account region kind name principal_id tags trust_policy? parts',
          integer: 'enabled created_at revision',
          bytes: 'hmac',
        },
        'account region kind name',
      ),
      db.schema.createIndex('principal_by_id').on('principal').column('principal_id').unique().compile(),
      table(
        'principal_policy',
        { text: 'account region kind principal name document', integer: 'revision', bytes: 'hmac' },
        'account region kind principal name',
        (builder) =>
          builder.addForeignKeyConstraint('of_principal', ['account', 'region', 'kind', 'principal'], 'principal', [
            'account',
            'region',
            'kind',
            'name',
          ]),
      ),
      table(
        'access_key',
        {
          text: 'account region access_key_id kind user',
          integer: 'active created_at revision',
          bytes: 'sealed_secret hmac',
        },
        'account region access_key_id',
        (builder) =>
          builder.addForeignKeyConstraint('of_user', ['account', 'region', 'kind', 'user'], 'principal', [
            'account',
            'region',
            'kind',
            'name',
          ]),
      ),
      // an access key id names its account, so it is unique across accounts
      db.schema.createIndex('access_key_by_id').on('access_key').column('access_key_id').unique().compile(),
      db.schema
        .createIndex('access_key_by_user')
        .on('access_key')
        .columns(['account', 'region', 'kind', 'user'])
        .compile(),
      table('setting', { text: 'account region name value', integer: 'revision' }, 'account region name'),
      table('counter', { text: 'name', integer: 'value' }, 'name'),
      table('change', { text: 'table name instance', integer: 'revision at' }, 'revision table name'),
      table('instance', { text: 'id host', integer: 'pid started_at seen_at beat seen_revision revision' }, 'id'),
      table('lease', { text: 'name holder', integer: 'fence expires_at revision' }, 'name'),
      db
        .insertInto('counter')
        .values([
          { name: 'revision', value: 0 },
          { name: 'trimmed', value: 0 },
        ])
        .compile(),
    ]
  },
}

function words(list: string | undefined): readonly string[] {
  return list === undefined ? [] : list.split(' ')
}
