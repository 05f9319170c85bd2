import { beforeEach, describe, expect, it } from 'vitest'
import type { AuditedCall } from '../../src/audit/audit.ts'
import { createAuthorizer } from '../../src/authorize/authorize.ts'
import { type Demand, deadlineIn, type Principal } from '../../src/call.ts'
import type { GrantRecord } from '../../src/catalog/catalog.ts'
import { createGrantFinder } from '../../src/grants.ts'
import { type Call, createPipeline, type Operation } from '../../src/pipeline.ts'

const account = '111122223333'
const keyId = '11111111-2222-4333-8444-555555555555'
const keyArn = `arn:aws:kms:us-east-1:${account}:key/${keyId}`
const principal: Principal = {
  type: 'user',
  arn: `arn:aws:iam::${account}:user/ann`,
  account,
  principalId: 'AIDAANNAAAAAAAAA',
  userName: 'ann',
}
const grant: GrantRecord = Object.freeze({
  account,
  region: 'us-east-1',
  keyId,
  keyArn,
  grantId: 'g1',
  name: '',
  granteePrincipal: principal.arn,
  issuingAccount: account,
  operations: ['Encrypt'],
  createdAt: 0,
})
const demand: Demand = {
  action: 'kms:Encrypt',
  resource: keyArn,
  resourceAccount: account,
  resourcePolicy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"${account}"},"Action":"kms:*","Resource":"*"}]}`,
  context: new Map(),
}

let grants: readonly GrantRecord[]
let isWarm: boolean
let records: AuditedCall[]

beforeEach(() => {
  grants = Object.freeze([grant])
  isWarm = true
  records = []
})

/** `perform` stands for what a call does between its decision and the moment it leaves the queue before the module. */
async function run(perform: () => void) {
  const finder = createGrantFinder({ peekGrants: () => (isWarm ? grants : undefined), findGrants: async () => grants })
  const pipeline = createPipeline({
    authorizer: createAuthorizer({ identityPolicies: () => [], grants: finder }),
    journal: {
      appendCall: async (call: AuditedCall) => {
        records.push(call)
        return 'event'
      },
    } as never,
    observer: { callFinished() {}, callUnauthenticated() {} },
    describeError: (_door, { code }) => ({ code, text: '' }),
  })
  const operation: Operation<null, null, string> = {
    name: 'Encrypt',
    readOnly: true,
    timeoutMs: 1000,
    parse: () => null,
    prepare: async () => ({ resources: null, demands: [demand] }),
    async perform(_input, _resources, { deadline }) {
      perform()
      deadline.admit?.()
      return 'done'
    },
    record: () => ({ requestParameters: null, responseElements: null, resources: [], additionalEventData: { a: 1 } }),
  }
  const call: Call = {
    door: 'kms',
    operation: operation as Operation,
    raw: null,
    requestId: 'r',
    receivedAt: 0,
    deadline: deadlineIn(1000),
    source: { ip: '192.0.2.1', userAgent: 'sdk' },
    partition: 'aws',
    authenticate: () => ({ principal, region: 'us-east-1' }),
  }
  return await pipeline(call)
}

describe('a call that a grant allows', () => {
  it('is recorded with the grant, beside what the operation records', async () => {
    expect(await run(() => {})).toEqual({ ok: true, output: 'done' })
    expect(records[0]?.additionalEventData).toEqual({ a: 1, grantId: 'g1' })
  })

  it('is refused when the grant is revoked while it waits', async () => {
    const outcome = await run(() => {
      grants = Object.freeze([])
    })
    expect(outcome).toMatchObject({ ok: false, error: { code: 'AccessDenied' } })
    expect(records[0]?.error).toEqual({ code: 'AccessDenied', text: '' })
  })

  it('goes on when its grants cannot be told at once', async () => {
    const outcome = await run(() => {
      isWarm = false
    })
    expect(outcome.ok).toBe(true)
  })
})
