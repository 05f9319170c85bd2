/**
 * The credentials file of a development gateway: an AWS shared-credentials file (AWS SDKs and Tools Reference Guide, "Shared config and
 * credentials files") whose profile `default` is the administrator.
 */
import { link } from 'node:fs/promises'
import { findText, replaceFile } from './files.ts'

export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
}

/** One profile, as the AWS CLI reads it. */
export function formatProfile(profile: string, { accessKeyId, secretAccessKey, region }: Credentials): string {
  return [
    `[${profile}]`,
    `aws_access_key_id = ${accessKeyId}`,
    `aws_secret_access_key = ${secretAccessKey}`,
    `region = ${region}`,
    '',
  ].join('\n')
}

/** The profile `default` of `text`; undefined when it has not all members. */
export function parseDefaultProfile(text: string): Credentials | undefined {
  const members = new Map<string, string>()
  let profile = ''
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    const [, head] = /^\[(.+)\]$/.exec(line) ?? []
    const [, name, value] = /^([^#;=\s]+)\s*=\s*(.*)$/.exec(line) ?? []
    if (head !== undefined) profile = head.trim()
    else if (profile === 'default' && name !== undefined) members.set(name.toLowerCase(), value!)
  }
  const accessKeyId = members.get('aws_access_key_id')
  const secretAccessKey = members.get('aws_secret_access_key')
  const region = members.get('region')
  if (!accessKeyId || !secretAccessKey || !region) return undefined
  return { accessKeyId, secretAccessKey, region }
}

/** `undefined`: there is no file; `null`: it holds no complete profile `default`. */
export async function findCredentials(file: string): Promise<Credentials | null | undefined> {
  const text = await findText(file)
  return text === undefined ? undefined : (parseDefaultProfile(text) ?? null)
}

/** Resolves when the file is on disk. */
export async function saveCredentials(file: string, credentials: Credentials): Promise<void> {
  const note =
    '# The administrator of the development gateway beside this file. Written by hsmgate; keep it to yourself.\n'
  await replaceFile(file, note + formatProfile('default', credentials))
}

/** Gives the file a second name, which tells the time and stays when the file is replaced; answers that name. */
export async function keepAside(file: string, now: Date): Promise<string> {
  const aside = `${file}.${now.toISOString().replace(/[-:.]/g, '')}`
  await link(file, aside)
  return aside
}
