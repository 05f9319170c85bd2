/** AWS KMS Developer Guide, "Quotas": request rates and the number of keys, as a client of the SDK meets them. */
import { CreateKeyCommand, DescribeKeyCommand, ListKeysCommand } from '@aws-sdk/client-kms'
import { AssumeRoleCommand, STSClient } from '@aws-sdk/nested-clients/sts'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'

let gateway: TestGateway

beforeAll(async () => {
  const quotas = { enabled: true, requestsPerSecond: { 'list-keys': 1, 'describe-key': 1, sts: 1 }, keysPerRegion: 1 }
  gateway = await startGateway({ config: { quotas } })
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

describe('quotas', () => {
  it('throttle a class of requests with the text of AWS', async () => {
    const kms = gateway.client()
    const answers = await Promise.allSettled(Array.from({ length: 8 }, () => kms.send(new ListKeysCommand({}))))
    const refused = answers.filter((answer) => answer.status === 'rejected').map(({ reason }) => reason)
    expect(refused.length).toBeGreaterThan(0)
    expect(refused[0]).toMatchObject({
      name: 'ThrottlingException',
      message: 'You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.',
      $metadata: { httpStatusCode: 400 },
    })
  })

  it('throttle before a key is looked up, whether or not it exists', async () => {
    const kms = gateway.client()
    const describeKey = () => kms.send(new DescribeKeyCommand({ KeyId: '00000000-0000-4000-8000-000000000000' }))
    const answers = await Promise.allSettled(Array.from({ length: 8 }, describeKey))
    const names = answers.map((answer) => (answer.status === 'rejected' ? answer.reason.name : 'found'))
    expect(names).toContain('NotFoundException')
    expect(names).toContain('ThrottlingException')
  })

  it('throttle the Security Token Service in its own words', async () => {
    const { endpoint, credentials } = gateway
    const sts = new STSClient({ endpoint, region: 'us-east-1', credentials, maxAttempts: 1 })
    const ask = () =>
      sts.send(new AssumeRoleCommand({ RoleArn: 'arn:aws:iam::000000000000:role/nobody', RoleSessionName: 'session' }))
    const answers = await Promise.allSettled(Array.from({ length: 8 }, ask))
    sts.destroy()
    const refused = answers.filter((answer) => answer.status === 'rejected').map(({ reason }) => reason)
    const throttled = refused.filter(({ name }) => name === 'Throttling')
    expect(throttled.length).toBeGreaterThan(0)
    expect(throttled.length).toBeLessThan(8)
    expect(throttled[0]).toMatchObject({ message: 'Rate exceeded', $metadata: { httpStatusCode: 400 } })
  })

  it('limit the keys of an account in a Region', async () => {
    const kms = gateway.client()
    await kms.send(new CreateKeyCommand({}))
    const second = kms.send(new CreateKeyCommand({}))
    await expect(second).rejects.toMatchObject({ name: 'LimitExceededException' })
    const elsewhere = gateway.client({ region: 'eu-west-1' })
    await expect(elsewhere.send(new CreateKeyCommand({}))).resolves.toBeDefined()
  })
})
