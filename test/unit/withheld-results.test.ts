import { describe, expect, it } from 'vitest'
import { createAuthorizer } from '../../src/authorize/authorize.ts'
import { deadlineIn, type Principal } from '../../src/call.ts'
import { GatewayError } from '../../src/error.ts'
import { createPipeline, type Operation } from '../../src/pipeline.ts'
import type { KmsParts } from '../../src/transport/kms/operations/key-operation.ts'
import { createOperations } from '../../src/transport/kms/operations/registry.ts'

const principal: Principal = {
  type: 'user',
  arn: 'arn:aws:iam::000000000000:user/ann',
  account: '000000000000',
  principalId: 'AIDAANNAAAAAAAAA',
  userName: 'ann',
}

/** One call of an operation that answers `output`, with a journal that works or doesn't. */
function run(output: object, journalWorks: boolean) {
  const pipeline = createPipeline({
    authorizer: createAuthorizer({ identityPolicies: () => [] }),
    journal: {
      appendCall: async () => {
        if (!journalWorks) throw new GatewayError('AuditUnavailable')
        return 'event'
      },
    } as never,
    observer: { callFinished() {}, callUnauthenticated() {} },
    describeError: (_door, { code }) => ({ code, text: '' }),
  })
  const operations = createOperations({ keys: {} } as unknown as KmsParts)
  const operation = {
    ...operations.get('GenerateDataKeyPair'),
    parse: () => null,
    prepare: async () => ({ resources: null, demands: [] }),
    perform: async () => output,
    uses: () => [],
    record: () => ({ requestParameters: null, responseElements: null, resources: [] }),
  } as unknown as Operation
  return pipeline({
    door: 'kms',
    operation,
    raw: null,
    requestId: 'request',
    receivedAt: 0,
    deadline: deadlineIn(1000),
    source: { ip: '127.0.0.1', userAgent: '' },
    partition: 'aws',
    authenticate: () => ({ principal, region: 'us-east-1' }),
  })
}

const members = () => ({
  PrivateKeyPlaintext: Buffer.from('private'),
  Plaintext: Buffer.from('plaintext'),
  SharedSecret: Buffer.from('shared'),
  PublicKey: Buffer.from('public'),
})

describe('a result whose audit record cannot be written', () => {
  it('does not leave, and its secrets are wiped', async () => {
    const result = { members: members() }
    expect(await run(result, false)).toMatchObject({ ok: false, error: { code: 'AuditUnavailable' } })
    const { PublicKey, ...secrets } = result.members
    for (const secret of Object.values(secrets)) expect(secret).toEqual(Buffer.alloc(secret.length))
    // the same bytes serve the next call
    expect(PublicKey).toEqual(Buffer.from('public'))
  })

  it('may be nothing at all', async () => {
    expect(await run({ members: null }, false)).toMatchObject({ ok: false, error: { code: 'AuditUnavailable' } })
  })
})

it('a result whose audit record is written leaves as it is', async () => {
  const outcome = await run({ members: members() }, true)
  expect(outcome).toEqual({ ok: true, output: { members: members() } })
})
