/** AWS KMS Developer Guide, "Quotas": request rates and the number of keys, as a client of the SDK meets them. */
import { CreateKeyCommand, ListKeysCommand } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'

let gateway: TestGateway

beforeAll(async () => {
  const quotas = { enabled: true, requestsPerSecond: { 'list-keys': 1 }, keysPerRegion: 1 }
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

  it('limit the keys of an account in a Region', async () => {
    const kms = gateway.client()
    await kms.send(new CreateKeyCommand({}))
    const second = kms.send(new CreateKeyCommand({}))
    await expect(second).rejects.toMatchObject({ name: 'LimitExceededException' })
    const elsewhere = gateway.client({ region: 'eu-west-1' })
    await expect(elsewhere.send(new CreateKeyCommand({}))).resolves.toBeDefined()
  })
})
