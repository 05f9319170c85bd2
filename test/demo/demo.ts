/**
 * `npm run demo`: hsmgate from nothing in a temporary folder, used by two clients that know nothing of it. The AWS Encryption SDK wraps a
 * real file in an envelope whose data key only the module can open; the openssl CLI checks a signature that the module made. Prints
 * what it does, ends with status 0, and leaves nothing behind.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { buildClient, CommitmentPolicy, getClient, KMS, KmsKeyringNode } from '@aws-crypto/client-node'
import { CreateKeyCommand, GetPublicKeyCommand, KMSClient, SignCommand } from '@aws-sdk/client-kms'
import { findCredentials } from '../../src/cli/credentials-file.ts'
import { type HsmgateProcess, runHsmgateProcess, startHsmgate } from '../support/hsmgate-process.ts'

const run = promisify(execFile)
const say = (text: string) => process.stdout.write(`${text}\n`)
const document = path.resolve(import.meta.dirname, '../../README.md')

const folder = await realpath(await mkdtemp(path.join(os.tmpdir(), 'hsmgate-demo-')))
try {
  await demonstrate(folder)
} finally {
  await rm(folder, { recursive: true, force: true })
}
say('\nDone: the gateway has ended, and its folder, token and keys are gone.')

async function demonstrate(home: string): Promise<void> {
  const directory = path.join(home, '.hsmgate')
  say(`Starting a private gateway with a SoftHSM2 token of its own in ${directory}`)
  await using gateway = startHsmgate([
    'dev',
    '--directory',
    directory,
    '--kms-port',
    '0',
    '--operator-port',
    '0',
    '--json',
  ])
  const { endpoints, credentialsFile, selfTest } = await report(gateway)
  say(`  it proved itself (${selfTest.join(', ')}) and listens on ${endpoints.kms}`)

  const found = await findCredentials(credentialsFile)
  if (!found) throw new Error(`${credentialsFile} holds no credentials`)
  const { accessKeyId, secretAccessKey, region } = found
  const connection = { endpoint: endpoints.kms, region, credentials: { accessKeyId, secretAccessKey } }
  const kms = new KMSClient(connection)
  try {
    await wrapFile(home, kms, connection)
    await signFile(home, kms)
  } finally {
    kms.destroy()
  }

  gateway.kill('SIGINT')
  const { code } = await gateway.ended
  if (code !== 0) throw new Error(`the gateway ended with ${code}`)
  const verify = ['audit', 'verify', '--json', '--config', path.join(directory, 'config.json')]
  const { ok, records, signedThrough } = JSON.parse((await runHsmgateProcess(verify)).out)
  if (!ok) throw new Error('the audit journal is not whole')
  say(
    `\nThe audit journal holds all of it: ${records} records, whole, signed by the module through record ${signedThrough}`,
  )
}

interface Report {
  readonly endpoints: { readonly kms: string }
  readonly credentialsFile: string
  readonly selfTest: readonly string[]
}

async function report(gateway: HsmgateProcess): Promise<Report> {
  const [text] = await gateway.output(/^\{\n[\s\S]*?\n\}$/m)
  return JSON.parse(text) as Report
}

async function wrapFile(home: string, kms: KMSClient, connection: object): Promise<void> {
  say('\nEnvelope encryption of a file with the AWS Encryption SDK')
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({ Description: 'demo: envelopes' }))
  const arn = KeyMetadata!.Arn!
  say(`  key in the module: ${arn}`)
  const { encrypt, decrypt } = buildClient(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
  const keyring = new KmsKeyringNode({ generatorKeyId: arn, clientProvider: getClient(KMS, connection) })
  const context = { document: path.basename(document), purpose: 'demo' }

  const plaintext = await readFile(document)
  const { result } = await encrypt(keyring, plaintext, { encryptionContext: context })
  const envelope = path.join(home, 'envelope')
  await writeFile(envelope, result)
  say(`  ${path.basename(document)}: ${plaintext.length} bytes, its envelope: ${result.length} bytes`)

  const opened = await decrypt(keyring, await readFile(envelope))
  if (!opened.plaintext.equals(plaintext)) throw new Error('the opened envelope differs from the file')
  const { encryptionContext } = opened.messageHeader
  if (encryptionContext.purpose !== context.purpose) throw new Error('the envelope lost its encryption context')
  say('  opened again: the same bytes, under the same encryption context')

  result[result.length >> 1]! ^= 1
  const refused = await decrypt(keyring, result).then(
    () => false,
    () => true,
  )
  if (!refused) throw new Error('a damaged envelope was opened')
  say('  with one bit changed: refused')
}

async function signFile(home: string, kms: KMSClient): Promise<void> {
  say('\nA signature that the openssl CLI checks')
  const { KeyMetadata } = await kms.send(
    new CreateKeyCommand({ Description: 'demo: signatures', KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }),
  )
  const KeyId = KeyMetadata!.KeyId!
  const Message = (await readFile(document)).subarray(0, 4096)
  const { Signature } = await kms.send(new SignCommand({ KeyId, Message, SigningAlgorithm: 'ECDSA_SHA_256' }))
  const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId }))
  const files = {
    message: path.join(home, 'message'),
    signature: path.join(home, 'signature'),
    key: path.join(home, 'key.der'),
  }
  await writeFile(files.message, Message)
  await writeFile(files.signature, Signature!)
  await writeFile(files.key, PublicKey!)
  const words = [
    'dgst',
    '-sha256',
    '-keyform',
    'DER',
    '-verify',
    files.key,
    '-signature',
    files.signature,
    files.message,
  ]
  const { stdout } = await run('openssl', words)
  say(`  ECDSA P-256 over the first ${Message.length} bytes of ${path.basename(document)}, by key ${KeyId}`)
  say(`  openssl: ${stdout.trim()}`)
}
