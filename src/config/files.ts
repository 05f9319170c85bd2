/** Looks at the files that a configuration names: they must exist, and those with secrets must be closed to others. Reads no secret. */
import { accessSync, constants, type Stats, statSync } from 'node:fs'
import type { Problem } from '../problem.ts'
import type { Config, TlsConfig } from './config.ts'
import type { PostgresqlConfig } from './sections/catalog.ts'

export function checkFiles(config: Config): readonly Problem[] {
  const problems: Problem[] = []
  const { caFile, clientCertificateFile, clientKeyFile } = config.customKeyStores
  for (const [name, file] of Object.entries({ caFile, clientCertificateFile }))
    if (file !== undefined) problems.push(...checkReadable(`customKeyStores.${name}`, file))
  if (clientKeyFile !== undefined)
    problems.push(...checkSecret('customKeyStores.clientKeyFile', clientKeyFile, 'the key of the client certificate'))
  for (const [name, token] of Object.entries(config.tokens)) {
    problems.push(...checkModule(`tokens.${name}.module`, token.module))
    if (token.pinFile !== undefined)
      problems.push(...checkSecret(`tokens.${name}.pinFile`, token.pinFile, 'write the PIN of the crypto user into it'))
    if (token.trustAnchorFile !== undefined)
      problems.push(...checkReadable(`tokens.${name}.trustAnchorFile`, token.trustAnchorFile))
  }
  if (config.catalog.kind === 'postgresql') problems.push(...checkServer(config.catalog.postgresql))
  const { kms, xks, relay, operator } = config.listen
  for (const [at, listener] of Object.entries({ kms, xks, relay, 'operator.http': operator.http })) {
    if (listener?.tls) problems.push(...checkTls(`listen.${at}.tls`, listener.tls))
  }
  return problems
}

function checkServer({ passwordFile, tls = {} }: PostgresqlConfig): readonly Problem[] {
  const at = 'catalog.postgresql'
  const { caFile, certificateFile, keyFile } = tls
  return [
    ...(passwordFile === undefined
      ? []
      : checkSecret(`${at}.passwordFile`, passwordFile, 'write the password of the database role into it')),
    ...(caFile === undefined ? [] : checkReadable(`${at}.tls.caFile`, caFile)),
    ...(certificateFile === undefined ? [] : checkReadable(`${at}.tls.certificateFile`, certificateFile)),
    ...(keyFile === undefined ? [] : checkSecret(`${at}.tls.keyFile`, keyFile, 'the private key as PEM')),
  ]
}

function checkReadable(at: string, file: string): readonly Problem[] {
  if (find(file)?.isFile() && isReadable(file)) return []
  return [{ at, cause: `${file} is not a readable file`, remedy: 'correct the path, or make the file readable' }]
}

function checkModule(at: string, file: string): readonly Problem[] {
  const stats = find(file)
  if (stats?.isFile() && isReadable(file)) return []
  const cause = stats ? `${file} is not a readable file` : `${file} does not exist`
  return [{ at, cause, remedy: 'install the PKCS#11 module of your HSM (SoftHSM: softhsm2), or correct the path' }]
}

/** A worker with a uid of its own may be the only one who can read the file, so being unreadable here is no problem. */
function checkSecret(at: string, file: string, whatItHolds: string): readonly Problem[] {
  const stats = find(file)
  if (!stats) return [{ at, cause: `${file} does not exist`, remedy: `create it with mode 0600: ${whatItHolds}` }]
  if (!stats.isFile()) return [{ at, cause: `${file} is not a file`, remedy: 'name a regular file' }]
  if ((stats.mode & 0o077) === 0) return []
  return [{ at, cause: `${file} is open to other users`, remedy: `chmod 600 ${file}` }]
}

function checkTls(at: string, tls: TlsConfig): readonly Problem[] {
  const readable = [
    ['certificateFile', tls.certificateFile],
    ['keyFile', tls.keyFile],
    ['clientCaFile', tls.clientCaFile],
  ] as const
  const problems: Problem[] = []
  for (const [key, file] of readable) {
    if (file === undefined || isReadable(file)) continue
    const trouble = find(file) === undefined ? 'is missing, or in a folder that is closed to' : 'cannot be read by'
    const cause = `${file} ${trouble} uid ${process.geteuid?.()}`
    problems.push({ at: `${at}.${key}`, cause, remedy: 'name a PEM file that the user of the gateway may read' })
  }
  return problems.some((problem) => problem.at.endsWith('keyFile'))
    ? problems
    : [...problems, ...checkSecret(`${at}.keyFile`, tls.keyFile, 'the private key as PEM')]
}

function find(file: string): Stats | undefined {
  try {
    return statSync(file, { throwIfNoEntry: false })
  } catch {
    return undefined
  }
}

function isReadable(file: string): boolean {
  try {
    accessSync(file, constants.R_OK)
    return true
  } catch {
    return false
  }
}
