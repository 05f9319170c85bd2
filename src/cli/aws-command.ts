/** Commands that a developer pastes into another terminal: complete, and quoted for a POSIX shell. */
import path from 'node:path'
import { type Config, isLoopback } from '../config/config.ts'
import type { Terminal } from './terminal.ts'

export interface AwsCommandParts {
  /** URL of the KMS door. */
  readonly endpoint: string
  readonly credentialsFile: string
  readonly region: string
  readonly config: Config
}

/**
 * Region and keys come from the credentials file. The AWS CLI prefers its environment to that file, so where this terminal's
 * environment would win, the command says which profile and Region it means.
 */
export function formatAwsCommand(parts: AwsCommandParts, environment: Terminal['environment']): string {
  const { endpoint, credentialsFile, region, config } = parts
  const tls = path.join(config.stateDirectory, 'tls')
  const words = [`AWS_SHARED_CREDENTIALS_FILE=${quote(credentialsFile)}`]
  if (config.listen.kms?.tls?.certificateFile === path.join(tls, 'server.pem')) {
    words.push(`AWS_CA_BUNDLE=${quote(path.join(tls, 'ca.pem'))}`)
  }
  words.push('aws', '--endpoint-url', quote(reachable(endpoint)))
  if (environment.AWS_ACCESS_KEY_ID || environment.AWS_PROFILE || environment.AWS_DEFAULT_PROFILE)
    words.push('--profile default')
  if (environment.AWS_REGION || environment.AWS_DEFAULT_REGION) words.push(`--region ${region}`)
  words.push('kms create-key --description', quote('my first key'))
  return words.join(' ')
}

/** Shows a TLS server with a key in the module, from any folder. */
export function formatTlsCommand(configFile: string): string {
  return `HSMGATE_CONFIG=${quote(configFile)} ${quote(tryTls)}`
}

const tryTls = path.resolve(import.meta.dirname, '../../deploy/try-tls.sh')

/** An address that stands for all of them is no address to connect to. */
function reachable(endpoint: string): string {
  const { hostname, port, protocol } = new URL(endpoint)
  const host = hostname === '0.0.0.0' || hostname === '[::]' ? 'localhost' : hostname
  const isLocal = isLoopback(host.replace(/[[\]]/g, ''))
  return isLocal && protocol === 'https:' ? `${protocol}//localhost:${port}` : `${protocol}//${host}:${port}`
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}
