/** Attacks on a whole gateway, each by what its attacker can do: a caller with few rights, or somebody who can write the state folder. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { request } from 'node:https'
import path from 'node:path'
import { promisify } from 'node:util'
import { CreateAliasCommand, CreateKeyCommand, GenerateMacCommand, type KMSClient } from '@aws-sdk/client-kms'
import Sqlite from 'better-sqlite3'
import { describe, expect, it } from 'vitest'
import { signRequest } from '../../src/authenticate/sign-request.ts'
import { encodeRow, type RowValue } from '../../src/catalog/row-encoding.ts'
import { sealedColumns } from '../../src/catalog/tables.ts'
import { startGateway, type TestCredentials, type TestGateway, testAccount, testRegion } from '../support/gateway.ts'
import { createCall } from '../support/kms-call.ts'
import { createTestToken } from '../support/softhsm.ts'

const document = (...Statement: Record<string, unknown>[]) => ({ Version: '2012-10-17', Statement })
const roleArn = (partition: string) => `arn:${partition}:iam::${testAccount}:role/admin`

async function assumeRole(gateway: TestGateway, credentials: TestCredentials, arn: string): Promise<string> {
  const body = new URLSearchParams({
    Action: 'AssumeRole',
    Version: '2011-06-15',
    RoleArn: arn,
    RoleSessionName: 'eve',
  }).toString()
  const { host } = new URL(gateway.endpoint)
  const { accessKeyId, secretAccessKey } = credentials
  const identity = { accessKeyId, secret: Buffer.from(secretAccessKey), region: testRegion, service: 'sts' }
  const headers = { host, 'content-type': 'application/x-www-form-urlencoded' }
  const signed = signRequest({ method: 'POST', target: '/', headers, body: Buffer.from(body) }, identity, Date.now())
  const response = await fetch(gateway.endpoint, { method: 'POST', headers: signed, body })
  const text = await response.text()
  return /<Code>(.*?)<\/Code>/.exec(text)?.[1] ?? `${response.status}`
}

describe('a caller with few rights', () => {
  it('does not slip past a Deny on a role by spelling its ARN with another partition', async () => {
    await using gateway = await startGateway()
    const trust = document({
      Effect: 'Allow',
      Principal: { AWS: `arn:aws:iam::${testAccount}:root` },
      Action: 'sts:AssumeRole',
    })
    await gateway.gateway.administration.createRole(testAccount, 'admin', JSON.stringify(trust))
    const eve = await gateway.createUser(
      'eve',
      document(
        { Effect: 'Allow', Action: 'sts:AssumeRole', Resource: '*' },
        { Effect: 'Deny', Action: 'sts:AssumeRole', Resource: roleArn('aws') },
      ),
    )
    expect(await assumeRole(gateway, eve, roleArn('aws'))).toBe('AccessDenied')
    expect(await assumeRole(gateway, eve, roleArn('aws-cn'))).toBe('ValidationError')
  })

  it('does not learn from a refusal which aliases another account has, nor their keys', async () => {
    await using gateway = await startGateway()
    const client = gateway.client()
    const { KeyMetadata } = await client.send(new CreateKeyCommand({}))
    await client.send(new CreateAliasCommand({ AliasName: 'alias/payroll', TargetKeyId: KeyMetadata?.KeyId }))
    const everything = document({ Effect: 'Allow', Action: 'kms:*', Resource: '*' })
    const eve = await gateway.createUser('eve', everything, '111122223333')
    const call = createCall(gateway, { credentials: eve })
    const alias = (name: string) => `arn:aws:kms:${testRegion}:${testAccount}:alias/${name}`
    const refusalOf = async (operation: string, body: (keyId: string) => object, name: string) => {
      const answer = await call(operation, body(alias(name)))
      return JSON.stringify([answer.status, answer.body]).replaceAll(name, '<name>')
    }
    const describeKey = (KeyId: string) => ({ KeyId })
    const reEncrypt = (SourceKeyId: string) => ({
      SourceKeyId,
      CiphertextBlob: Buffer.alloc(200, 1).toString('base64'),
      DestinationKeyId: alias('other'),
    })
    for (const [operation, body] of [['DescribeKey', describeKey] as const, ['ReEncrypt', reEncrypt] as const]) {
      const existing = await refusalOf(operation, body, 'payroll')
      expect(existing).toContain('AccessDeniedException')
      expect(existing).toBe(await refusalOf(operation, body, 'nothing'))
    }
  })

  it('gets an answer for tens of thousands of spellings of one key of an encryption context', async () => {
    await using gateway = await startGateway()
    const { KeyMetadata } = await gateway.client().send(new CreateKeyCommand({}))
    const eve = await gateway.createUser('eve')
    const context: Record<string, string> = {}
    for (let spelling = 0; spelling < 30_000; spelling++) {
      const bits = spelling.toString(2).padStart(16, '0')
      context[[...bits].map((bit) => (bit === '1' ? 'A' : 'a')).join('')] = ''
    }
    const call = createCall(gateway, { credentials: eve })
    const body = { KeyId: KeyMetadata?.KeyId, Plaintext: 'AAAA', EncryptionContext: context }
    expect(await call('Encrypt', body)).toMatchObject({ status: 400, body: { __type: 'AccessDeniedException' } })
  })
})

describe('an access key that is withdrawn', () => {
  it('stays out although the module was still sealing or unsealing it', async () => {
    await using gateway = await startGateway()
    const { administration } = gateway.gateway
    await administration.createUser(testAccount, 'mallory')
    const [made] = await Promise.all([
      administration.createAccessKey(testAccount, 'mallory'),
      administration.setUserEnabled(testAccount, 'mallory', false),
    ])
    const call = createCall(gateway, { credentials: made })
    const refused = { status: 400, body: { __type: 'UnrecognizedClientException' } }
    expect(await call('ListKeys')).toMatchObject(refused)

    await administration.setUserEnabled(testAccount, 'mallory', true)
    await administration.setAccessKeyActive(made.accessKeyId, false)
    const activation = administration.setAccessKeyActive(made.accessKeyId, true)
    // As soon as the catalog has it; the module is asked after that.
    const isActive = async () => (await administration.listAccessKeys(testAccount, 'mallory'))[0]?.active
    while (!(await isActive())) await new Promise(setImmediate)
    await Promise.all([activation, administration.setAccessKeyActive(made.accessKeyId, false)])
    expect(await call('ListKeys')).toMatchObject(refused)
  })
})

describe('a door with client certificates', () => {
  it('lets nobody in who has none', async () => {
    await using token = await createTestToken()
    const file = (name: string) => path.join(token.directory, name)
    const options = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
    const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
    const files = ['-keyout', file('key.pem'), '-out', file('cert.pem')]
    await promisify(execFile)('openssl', ['req', ...options, ...names, ...files])
    const tls = { certificateFile: file('cert.pem'), keyFile: file('key.pem'), clientCaFile: file('cert.pem') }
    await using gateway = await startGateway({
      token,
      config: { listen: { kms: { address: '127.0.0.1', port: 0, tls }, operator: { http: null } } },
    })
    const [cert, key] = await Promise.all([readFile(file('cert.pem')), readFile(file('key.pem'))])
    const ask = (client: object) =>
      new Promise((resolve, reject) => {
        const asked = request(gateway.endpoint, { method: 'POST', ca: cert, agent: false, ...client }, (response) =>
          resolve(response.resume().statusCode),
        )
        asked.on('error', reject).end('{}')
      })
    await expect(ask({})).rejects.toThrow(/certificate required|ECONNRESET|EPIPE|socket hang up/)
    expect(await ask({ cert, key })).toBe(400)
  })
})

describe('somebody who can write the catalog', () => {
  type Row = Record<string, RowValue>

  /** Seals every row anew with MACs that the KMS door computes, and points the catalog's own HMAC key at the key behind them. */
  async function forge(file: string, objectId: string, generateMac: (bytes: Buffer) => Promise<Uint8Array>) {
    const database = new Sqlite(file)
    const isSeal = (row: Row) => row.account === 'system' && row.key_id === 'catalog-hmac'
    for (const [table, columns] of Object.entries(sealedColumns)) {
      for (const row of database.prepare(`select rowid, * from "${table}"`).all([]) as Row[]) {
        const forged: Row = { ...row }
        if (table === 'key' && isSeal(row)) forged.purpose = 'kms'
        if (table === 'material' && isSeal(row)) forged.object_id = Buffer.from(objectId, 'hex')
        if (table === 'principal_policy' && row.principal === 'eve') {
          forged.document = JSON.stringify(document({ Effect: 'Allow', Action: '*', Resource: '*' }))
        }
        const values = columns.map((column) => forged[column] as RowValue)
        forged.hmac = await generateMac(encodeRow(table, values))
        const names = [...columns, 'hmac']
        const set = names.map((name) => `"${name}" = ?`).join(', ')
        database
          .prepare(`update "${table}" set ${set} where rowid = ?`)
          .run([...names.map((name) => forged[name] as RowValue), row.rowid as number])
      }
    }
    database.close()
  }

  it('does not forge rows with the MACs that the KMS door sells', async () => {
    await using token = await createTestToken()
    const macs = new Map<string, Uint8Array>()
    let objectId = ''
    let catalog = ''
    {
      await using gateway = await startGateway({ token })
      catalog = path.join(gateway.directory, 'catalog.sqlite')
      const eve = await gateway.createUser(
        'eve',
        document({ Effect: 'Allow', Action: ['kms:CreateKey', 'kms:GenerateMac'], Resource: '*' }),
      )
      const client: KMSClient = gateway.client({ credentials: eve })
      const created = await client.send(new CreateKeyCommand({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' }))
      const KeyId = created.KeyMetadata?.KeyId as string
      const shown = await gateway.ask<{ materials: { objectId: string }[] }>('key', 'show', { key: KeyId })
      objectId = shown.materials[0]?.objectId as string
      await gateway.gateway.settle()
      // What eve would do by hand while the gateway still runs: sell herself a MAC of every row that she is going to write.
      await forge(await copyOf(catalog), objectId, async (bytes) => {
        const { Mac } = await client.send(
          new GenerateMacCommand({ KeyId, MacAlgorithm: 'HMAC_SHA_256', Message: bytes }),
        )
        macs.set(bytes.toString('hex'), Mac as Uint8Array)
        return Mac as Uint8Array
      })
    }
    await forge(catalog, objectId, async (bytes) => macs.get(bytes.toString('hex')) as Uint8Array)
    await expect(startGateway({ token })).rejects.toMatchObject({
      code: 'IntegrityFailed',
      detail: expect.stringContaining('another kind of key'),
    })
  })

  async function copyOf(file: string): Promise<string> {
    const copy = `${file}.copy`
    const database = new Sqlite(file)
    database.exec(`vacuum into '${copy}'`)
    database.close()
    return copy
  }
})
