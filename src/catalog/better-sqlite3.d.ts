/** The part of better-sqlite3 that the catalog uses; the package comes without types. */
declare module 'better-sqlite3' {
  class Sqlite {
    constructor(
      file: string,
      options?: { readonly readonly?: boolean; readonly fileMustExist?: boolean; readonly timeout?: number },
    )
    readonly inTransaction: boolean
    prepare(sql: string): Sqlite.Statement
    exec(sql: string): this
    pragma(sql: string, options?: { readonly simple?: boolean }): unknown
    close(): this
  }

  namespace Sqlite {
    type Value = null | number | bigint | string | Uint8Array

    interface Statement {
      /** True for statements that return rows. */
      readonly reader: boolean
      all(parameters: readonly Value[]): Record<string, Value>[]
      run(parameters: readonly Value[]): { readonly changes: number }
    }
  }

  export = Sqlite
}
