/** AWS KMS API Reference, custom key stores: what a gateway answers that has none. */
import {
  ConnectCustomKeyStoreCommand,
  CreateCustomKeyStoreCommand,
  CreateKeyCommand,
  DeleteCustomKeyStoreCommand,
  DescribeCustomKeyStoresCommand,
  DisconnectCustomKeyStoreCommand,
  UpdateCustomKeyStoreCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'

let gateway: TestGateway
let kms: ReturnType<TestGateway['client']>
const CustomKeyStoreId = 'cks-1234567890abcdef0'

beforeAll(async () => {
  gateway = await startGateway()
  kms = gateway.client()
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

describe('custom key stores', () => {
  it('are none, and a named one is not found by any operation', async () => {
    const listed = await kms.send(new DescribeCustomKeyStoresCommand({}))
    expect(listed).toMatchObject({ CustomKeyStores: [], Truncated: false })
    const refused = { name: 'CustomKeyStoreNotFoundException', $metadata: { httpStatusCode: 400 } }
    for (const answer of [
      kms.send(new DescribeCustomKeyStoresCommand({ CustomKeyStoreId })),
      kms.send(new DescribeCustomKeyStoresCommand({ CustomKeyStoreName: 'mine' })),
      kms.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId })),
      kms.send(new DisconnectCustomKeyStoreCommand({ CustomKeyStoreId })),
      kms.send(new DeleteCustomKeyStoreCommand({ CustomKeyStoreId })),
      kms.send(new UpdateCustomKeyStoreCommand({ CustomKeyStoreId, NewCustomKeyStoreName: 'other' })),
      kms.send(new CreateKeyCommand({ CustomKeyStoreId, Origin: 'AWS_CLOUDHSM' })),
    ]) {
      await expect(answer).rejects.toMatchObject(refused)
    }
  })

  it('validate requests, keep passwords out of the record and cannot be made', async () => {
    const request = { CustomKeyStoreName: 'mine', CloudHsmClusterId: 'cluster-2345abcdefg' }
    const bad = kms.send(new CreateCustomKeyStoreCommand({ ...request, KeyStorePassword: 'short' }))
    await expect(bad).rejects.toMatchObject({
      name: 'ValidationException',
      message: expect.not.stringContaining('short'),
    })
    const create = kms.send(new CreateCustomKeyStoreCommand({ ...request, KeyStorePassword: 'kmsPswd-123' }))
    await expect(create).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
    const records = await gateway.auditRecords()
    expect(records.at(-1)?.event).toMatchObject({ eventName: 'CreateCustomKeyStore' })
    expect(JSON.stringify(records)).not.toContain('kmsPswd')
  })
})
