/** SQLite's result codes → what the catalog answers, with the remedy for the operator. By code, never by text. */
import { ConstraintError, catalogUnavailable } from './database.ts'
import type { SqliteFailure } from './sqlite-messages.ts'

/** By prefix: extended codes begin with their primary code (https://www.sqlite.org/rescode.html). */
const remedies: readonly (readonly [prefix: string, remedy: string])[] = [
  ['SQLITE_FULL', 'the disk is full: free space on its file system'],
  ['SQLITE_IOERR', 'reading or writing failed: check the disk and the kernel log'],
  ['SQLITE_CORRUPT', 'the file is damaged: stop the gateway and restore it from a backup'],
  ['SQLITE_NOTADB', 'the file is no SQLite database: restore it from a backup, or correct its path'],
  ['SQLITE_READONLY', 'it cannot be written: check owner and mode of the file and of its folder'],
  ['SQLITE_PERM', 'access is refused: check owner and mode of the file and of its folder'],
  ['SQLITE_CANTOPEN_NOWAL', 'its file system has no shared memory for a write-ahead log: use a local disk'],
  ['SQLITE_CANTOPEN', 'it cannot be opened: check that its folder exists and may be written'],
  ['SQLITE_BUSY', 'another process holds its lock: end what else has the file open'],
  ['SQLITE_LOCKED', 'another process holds its lock: end what else has the file open'],
  ['SQLITE_PROTOCOL', 'another process holds its lock: end what else has the file open'],
  ['SQLITE_NOMEM', 'memory ran out'],
  ['ENOENT', 'its folder does not exist: create it'],
  ['EACCES', 'access is refused: check owner and mode of the file and of its folder'],
  ['EROFS', 'its file system is mounted read-only'],
  ['ENOSPC', 'the disk is full: free space on its file system'],
]

/** Constraint violations as ConstraintError, failures of the machine as `CatalogUnavailable`, and our own wrong SQL as it is. */
export function toEngineError(file: string, failure: SqliteFailure): Error {
  const cause = Object.assign(new Error(failure.message), { code: failure.code })
  switch (failure.code) {
    case 'SQLITE_CONSTRAINT_UNIQUE':
    case 'SQLITE_CONSTRAINT_PRIMARYKEY':
      return new ConstraintError('unique', cause)
    case 'SQLITE_CONSTRAINT_FOREIGNKEY':
      return new ConstraintError('foreign-key', cause)
  }
  const remedy = remedies.find(([prefix]) => failure.code.startsWith(prefix))?.[1]
  if (remedy === undefined) return cause
  return catalogUnavailable(`catalog ${file}: ${remedy} (${failure.code})`, cause)
}
