/**
 * What PostgreSQL and its client report → what the catalog answers, with the remedy for the operator. By SQLSTATE or code, never by text
 * (PostgreSQL documentation, appendix A, "PostgreSQL Error Codes").
 */
import { ConstraintError, catalogUnavailable } from './database.ts'

/** By prefix: the first two characters of a SQLSTATE are its class. */
const remedies: readonly (readonly [prefix: string, remedy: string])[] = [
  ['28P01', 'the server refuses the password: correct the file that catalog.postgresql.passwordFile names'],
  ['28', 'the server does not let this user in: check catalog.postgresql.user and pg_hba.conf'],
  ['3D000', 'there is no such database: create it (createdb), or correct catalog.postgresql.database'],
  ['42501', 'the user may not do that: make it the owner of the database'],
  ['42P01', 'its tables are gone: restore a backup, or correct catalog.postgresql.database'],
  ['25006', 'the server is read-only, a standby: name the primary in catalog.postgresql.host'],
  ['25P03', 'this gateway stood still in the middle of a transaction: look for a stalled machine'],
  ['53300', 'the server has no connection free: raise max_connections, or lower catalog.postgresql.connections'],
  ['53100', 'the disk of the server is full: free space there'],
  ['53', 'the server ran out of resources: see its log'],
  ['55P03', 'a lock was not to be had: see who holds it in pg_stat_activity'],
  ['57014', 'the server took too long: see its load, and who holds locks in pg_stat_activity'],
  ['57', 'the server is stopping or starting: wait, or start it'],
  ['58', 'the server met a fault of its machine: see its log'],
  ['08', 'the connection failed: check the server and the network between'],
  ['40', 'other transactions were in the way again and again: see pg_stat_activity'],
  ['XX', 'the server reports damage or a fault of its own: see its log'],
  ['ECONNREFUSED', 'no server answers there: start it, or correct catalog.postgresql.host and port'],
  ['ENOENT', 'no server has its socket there: start it, or correct catalog.postgresql.host and port'],
  ['EACCES', 'the socket of the server may not be used: run the gateway in a group that may'],
  ['ENOTFOUND', 'the name of the server is unknown: correct catalog.postgresql.host'],
  ['EAI_AGAIN', 'the name of the server cannot be looked up now: check the resolver'],
  ['SELF_SIGNED', 'its certificate is not trusted: name the authority in catalog.postgresql.tls.caFile'],
  ['DEPTH_ZERO', 'its certificate is not trusted: name the authority in catalog.postgresql.tls.caFile'],
  ['UNABLE_TO', 'its certificate is not trusted: name the authority in catalog.postgresql.tls.caFile'],
  ['CERT_HAS_EXPIRED', 'its certificate has expired: renew it on the server'],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'its certificate is for another name: correct catalog.postgresql.host'],
  [
    'HSMGATE_NO_PASSWORD',
    'the server asks for a password: name a file that holds it in catalog.postgresql.passwordFile',
  ],
  ['HSMGATE_PASSWORD', 'the file of the password cannot be read: check catalog.postgresql.passwordFile and its owner'],
  ['HSMGATE_TLS', 'a file of catalog.postgresql.tls cannot be read: check paths and owners'],
  ['HSMGATE_STANDBY', 'the server is a standby: name the primary in catalog.postgresql.host'],
  ['HSMGATE_ENCODING', 'the database is not in UTF-8: make one with createdb --encoding=UTF8 --template=template0'],
  ['HSMGATE_OLD', 'the server is older than PostgreSQL 13: upgrade it'],
]

const sqlState = /^(?:[0-9][0-9A-Z]|F0|HV|P0|XX)[0-9A-Z]{3}$/

/** SQLSTATEs of a transaction that lost against another one: nothing was done, the same again may succeed. */
export function isTransient(error: unknown): boolean {
  const code = codeOf(error)
  return code === '40001' || code === '40P01'
}

/** Constraint violations as ConstraintError, failures of server and network as `CatalogUnavailable`, our own wrong SQL as it is. */
export function toPostgresError(place: string, error: unknown): Error {
  const code = codeOf(error)
  const cause = error instanceof Error ? error : new Error(String(error))
  switch (code) {
    case '23505':
    // two sessions that make one table at once
    case '42P07':
    case '42710':
      return new ConstraintError('unique', cause)
    case '23503':
      return new ConstraintError('foreign-key', cause)
  }
  const remedy = remedies.find(([prefix]) => code?.startsWith(prefix))?.[1]
  // the connection's own faults have codes of the system (EPIPE), or none at all
  if (remedy === undefined && code !== undefined && sqlState.test(code)) return cause
  const text = remedy ?? 'the connection failed: check the server and the network between'
  return catalogUnavailable(`catalog ${place}: ${text} (${code ?? 'connection'})`, cause)
}

function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
}
