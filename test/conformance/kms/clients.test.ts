/**
 * The AWS CLI and boto3 as processes, for what clients read differently: paging, times, refusals without a text, what is retried. Titles that begin
 * with a trap have its number in docs/kms-compatibility.md.
 */
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { KMS } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run, runOk } from '../../support/command.ts'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { makeKey, type NewKey, openKms } from '../../support/kms-sdk.ts'

let gateway: TestGateway
let kms: KMS
let key: NewKey
let rsa: NewKey
let configFile: string

beforeAll(async () => {
  gateway = await startGateway()
  kms = openKms(gateway)
  key = await makeKey(kms)
  rsa = await makeKey(kms, { KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' })
  for (let i = 0; i < 5; i++) await kms.createAlias({ AliasName: `alias/page-${i}`, TargetKeyId: key.id })
  configFile = path.join(gateway.token.directory, 'aws-config')
  await writeFile(configFile, '[default]\nparameter_validation = false\n')
}, 60_000)

afterAll(async () => {
  kms?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const patience = { timeout: 120_000 }
const unknown = '11111111-2222-4333-8444-555555555555'
const blob = (bytes: string | Uint8Array) => ({ base64: Buffer.from(bytes as string).toString('base64') })

interface Boto3Answer {
  readonly output?: Record<string, unknown>
  readonly pages?: readonly Record<string, unknown>[]
  readonly code?: string
  readonly message?: string
  readonly status?: number
  readonly attempts?: number
}

/** All calls in one process: starting Python takes longer than they do. */
async function boto3(
  calls: readonly (readonly [operation: string, parameters: object])[],
  more: Readonly<Record<string, string>> = {},
): Promise<readonly Boto3Answer[]> {
  const script = path.resolve(import.meta.dirname, '../../support/boto3-kms.py')
  const env = { ...gateway.cliEnvironment, ...more }
  const input = Buffer.from(JSON.stringify(calls))
  const text = await runOk('/usr/bin/python3', [script, gateway.endpoint], { env, input })
  return JSON.parse(text.toString()) as Boto3Answer[]
}

function aws(...args: readonly string[]) {
  const env = { ...gateway.cliEnvironment, AWS_CONFIG_FILE: configFile }
  return run('/usr/bin/aws', ['--endpoint-url', gateway.endpoint, 'kms', ...args, '--output', 'json'], { env })
}

async function awsOk(...args: readonly string[]): Promise<Record<string, unknown>> {
  const { status, stdout, stderr } = await aws(...args)
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  return JSON.parse(stdout.toString()) as Record<string, unknown>
}

describe('boto3', () => {
  it('trap 28: boto3 walks all pages because each says whether it is truncated', patience, async () => {
    const [aliases, keys, grants] = await boto3([
      ['paginate:list_aliases', { PageSize: 2, KeyId: key.id }],
      ['paginate:list_keys', { PageSize: 1 }],
      ['paginate:list_grants', { PageSize: 1, KeyId: key.id }],
    ])
    expect(aliases!.pages!.map(({ Truncated }) => Truncated)).toEqual([true, true, false])
    const names = aliases!.pages!.flatMap((page) => page.Aliases as { AliasName: string }[])
    expect(names.map(({ AliasName }) => AliasName)).toEqual([0, 1, 2, 3, 4].map((i) => `alias/page-${i}`))
    expect(keys!.pages!.flatMap((page) => page.Keys as unknown[])).toEqual((await kms.listKeys({})).Keys)
    expect(grants!.pages).toHaveLength(1)
  })

  it('trap 57: boto3 reads times as times', patience, async () => {
    const [described] = await boto3([['describe_key', { KeyId: key.id }]])
    const { CreationDate } = described!.output!.KeyMetadata as { CreationDate: { epochSeconds: number } }
    expect(Math.abs(CreationDate.epochSeconds * 1000 - Date.now())).toBeLessThan(600_000)
  })

  it('trap 7: boto3 shows a refusal without a text as one with an empty one', patience, async () => {
    const { CiphertextBlob } = await kms.encrypt({ KeyId: key.id, Plaintext: Buffer.from('x') })
    const [wrongContext, badSignature] = await boto3([
      ['decrypt', { CiphertextBlob: blob(CiphertextBlob!), EncryptionContext: { a: '1' } }],
      [
        'verify',
        {
          KeyId: rsa.id,
          Message: blob('m'),
          Signature: blob('s'.repeat(256)),
          SigningAlgorithm: 'RSASSA_PSS_SHA_256',
        },
      ],
    ])
    expect(wrongContext).toMatchObject({ code: 'InvalidCiphertextException', message: '', status: 400, attempts: 1 })
    expect(badSignature).toMatchObject({ code: 'KMSInvalidSignatureException', message: '', status: 400 })
  })

  it('trap 18: boto3 without checks of its own is told what is missing', patience, async () => {
    const [nothing, wrongType, emptyPlaintext] = await boto3([
      ['encrypt', {}],
      ['describe_key', { KeyId: 7 }],
      ['encrypt', { KeyId: key.id, Plaintext: blob('') }],
    ])
    expect(nothing).toMatchObject({
      code: 'ValidationException',
      message: expect.stringContaining("Value null at 'keyId' failed to satisfy constraint: Member must not be null"),
      status: 400,
    })
    expect(wrongType).toMatchObject({ code: 'SerializationException', status: 400 })
    expect(emptyPlaintext).toMatchObject({
      code: 'ValidationException',
      message: expect.stringMatching(/^1 validation error detected: Value at 'plaintext' failed/),
    })
  })

  it('trap 43: boto3 asks three times when a limit is exceeded, and once for what is invalid', patience, async () => {
    const { Policy } = await kms.getKeyPolicy({ KeyId: key.id })
    const [large, missing] = await boto3([
      ['put_key_policy', { KeyId: key.id, Policy: Policy!.padEnd(32_769) }],
      ['describe_key', { KeyId: unknown }],
    ])
    expect(large).toMatchObject({ code: 'LimitExceededException', status: 400, attempts: 3 })
    expect(missing).toMatchObject({ code: 'NotFoundException', status: 400, attempts: 1 })
  })

  it('trap 59: boto3 shows the text of a denial', patience, async () => {
    const { accessKeyId, secretAccessKey } = await gateway.createUser('boto3-denied')
    const as = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey }
    const [denied, unknownKey] = await boto3(
      [
        ['list_keys', {}],
        ['create_key', {}],
      ],
      as,
    )
    expect(denied).toMatchObject({
      code: 'AccessDeniedException',
      message: `User: arn:aws:iam::${testAccount}:user/boto3-denied is not authorized to perform: kms:ListKeys on resource: * because no identity-based policy allows the kms:ListKeys action`,
      status: 400,
      attempts: 1,
    })
    expect(unknownKey).toMatchObject({
      message: `User: arn:aws:iam::${testAccount}:user/boto3-denied is not authorized to perform: kms:CreateKey because no identity-based policy allows the kms:CreateKey action`,
    })
  })

  it('makes, uses and deletes a key, and reads every answer', patience, async () => {
    const { id: KeyId, arn } = await makeKey(kms)
    const answers = await boto3([
      ['encrypt', { KeyId, Plaintext: blob('hello'), EncryptionContext: { a: '1' } }],
      ['generate_data_key_pair', { KeyId, KeyPairSpec: 'ECC_NIST_P256' }],
      ['generate_random', { NumberOfBytes: 16 }],
      ['get_public_key', { KeyId: rsa.id }],
      ['enable_key_rotation', { KeyId }],
      ['get_key_rotation_status', { KeyId }],
      ['tag_resource', { KeyId, Tags: [{ TagKey: 'a', TagValue: 'b' }] }],
      ['list_resource_tags', { KeyId }],
      ['schedule_key_deletion', { KeyId, PendingWindowInDays: 7 }],
      ['cancel_key_deletion', { KeyId }],
      ['describe_custom_key_stores', {}],
    ])
    for (const answer of answers) expect(answer).toMatchObject({ status: 200, attempts: 1 })
    expect(answers[0]!.output).toMatchObject({ KeyId: arn, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' })
    expect(answers[5]!.output).toMatchObject({ KeyRotationEnabled: true })
    expect(answers[7]!.output).toMatchObject({ Tags: [{ TagKey: 'a', TagValue: 'b' }], Truncated: false })
    expect(answers[8]!.output).toMatchObject({ KeyId: arn, DeletionDate: { epochSeconds: expect.any(Number) } })
  })
})

describe('the AWS CLI', () => {
  it('trap 1: the CLI gets status 400 for what does not exist', patience, async () => {
    const { status, stderr } = await aws('describe-key', '--key-id', unknown, '--debug')
    expect(status).not.toBe(0)
    expect(stderr).toMatch(/" 400 /)
    expect(stderr).toContain(`(NotFoundException) when calling the DescribeKey operation: Key '`)
  })

  it('trap 2: the CLI shows the key ARN for an alias', patience, async () => {
    const file = path.join(gateway.token.directory, 'cli-plaintext')
    await writeFile(file, 'x')
    const answer = await awsOk('encrypt', '--key-id', 'alias/page-0', '--plaintext', `fileb://${file}`)
    expect(answer.KeyId).toBe(key.arn)
  })

  it('trap 28: the CLI lists everything, page by page', patience, async () => {
    const { Aliases } = await awsOk('list-aliases', '--key-id', key.id, '--page-size', '2')
    expect(Aliases).toHaveLength(5)
    const { Keys } = await awsOk('list-keys', '--page-size', '1')
    expect(Keys).toEqual((await kms.listKeys({})).Keys)
  })

  it('trap 57: the CLI is sent times as numbers', patience, async () => {
    const { stderr } = await aws('describe-key', '--key-id', key.id, '--debug')
    expect(stderr).toMatch(/"CreationDate":\s?\d+(\.\d+)?[,}]/)
  })

  it('trap 18: the CLI without checks of its own is told what is missing', patience, async () => {
    const { status, stderr } = await aws('list-key-policies', '--key-id', '')
    expect(status).not.toBe(0)
    expect(stderr).toContain("Value '' at 'keyId' failed to satisfy constraint")
  })

  it('trap 44: the CLI is refused a reserved tag', patience, async () => {
    const { stderr } = await aws('tag-resource', '--key-id', key.id, '--tags', 'TagKey=AWS:x,TagValue=1')
    expect(stderr).toContain(
      '(TagException) when calling the TagResource operation: Tags beginning with aws: are reserved',
    )
  })

  it('trap 30: the CLI reads the rotation status of an RSA key', patience, async () => {
    expect(await awsOk('get-key-rotation-status', '--key-id', rsa.id)).toMatchObject({ KeyRotationEnabled: false })
  })
})
