/** What the gateway's main thread and a SQLite thread say to each other. Everything survives a structured clone. */

export type SqliteValue = null | number | bigint | string | Uint8Array

export interface ThreadData {
  readonly file: string
  readonly role: 'reader' | 'writer'
  readonly busyTimeoutMs: number
}

export interface ThreadRequest {
  readonly id: number
  readonly kind: 'read' | 'write' | 'close'
  readonly statements: readonly {
    readonly sql: string
    readonly parameters: readonly SqliteValue[]
    readonly expectRows?: number | undefined
  }[]
}

export type ThreadAnswer =
  | { readonly id: number; readonly rows: readonly (readonly Record<string, SqliteValue>[])[] }
  | { readonly id: number; readonly missed: number }
  | { readonly id: number; readonly failure: SqliteFailure }

/** `code` is SQLite's extended result code by name (https://www.sqlite.org/rescode.html), or that of a system call. */
export interface SqliteFailure {
  readonly code: string
  readonly message: string
}
