import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../../../src/error.ts'
import type { Scope } from '../../../../src/pipeline.ts'
import type { KmsOperation } from '../../../../src/transport/kms/operations/key-operation.ts'
import { withRequestQuota } from '../../../../src/transport/kms/operations/quota-class.ts'
import { createRequestQuotas } from '../../../../src/transport/kms/request-quotas.ts'

const scope = { account: '000000000000', region: 'us-east-1' } as Scope

/** An operation whose key has this spec, or is not found, behind quotas; `lookUps` counts how often it was looked up. */
function limited(name: string, spec: string | undefined, requestsPerSecond: Record<string, number>) {
  const counted = { lookUps: 0 }
  const operation = {
    name,
    async prepare() {
      counted.lookUps++
      if (spec === undefined) throw new GatewayError('KeyNotFound', { text: 'no such key' })
      return { resources: { entry: { key: { spec } } }, demands: [] }
    },
  } as unknown as KmsOperation
  const quotas = createRequestQuotas({ requestsPerSecond, nowMs: () => 0 })
  const wrapped = withRequestQuota(operation, quotas)
  const ask = async (times: number, input: unknown = {}) => {
    const codes: string[] = []
    for (let i = 0; i < times; i++) {
      const code = await wrapped.prepare(input, scope).then(
        () => 'passed',
        (error: GatewayError) => error.code,
      )
      codes.push(code)
    }
    return codes
  }
  return { counted, ask, quotas }
}

const few = { 'crypto-symmetric': 1, 'crypto-rsa': 1, 'crypto-ecc': 1, 'crypto-ml-dsa': 1, 'crypto-ml-kem': 1 }

describe('the request quota of an operation', () => {
  it('is taken before the key of a management operation is looked up', async () => {
    const { ask, counted } = limited('DescribeKey', undefined, { 'describe-key': 2 })
    expect(await ask(4)).toEqual(['KeyNotFound', 'KeyNotFound', 'Throttled', 'Throttled'])
    expect(counted.lookUps).toBe(2)
  })

  it('is that of the kind of key where the operation is cryptographic', async () => {
    expect(await limited('Sign', 'RSA_2048', { ...few, 'crypto-rsa': 3 }).ask(4)).toEqual([
      ...['passed', 'passed', 'passed'],
      'Throttled',
    ])
    expect(await limited('Sign', 'ML_DSA_65', few).ask(2)).toEqual(['passed', 'Throttled'])
    expect(await limited('Decapsulate', 'ML_KEM_768', few).ask(2)).toEqual(['passed', 'Throttled'])
    expect(await limited('Encrypt', 'SYMMETRIC_DEFAULT', { ...few, 'crypto-symmetric': 2 }).ask(3)).toEqual([
      ...['passed', 'passed'],
      'Throttled',
    ])
  })

  it('bounds how many unknown keys a cryptographic operation looks up', async () => {
    const { ask, counted } = limited('Decrypt', undefined, few)
    expect(await ask(20)).toEqual(['KeyNotFound', ...Array(19).fill('Throttled')])
    // one of each class of rates
    expect(counted.lookUps).toBe(5)
  })

  it('of a data key pair is that of the pair', async () => {
    const { ask, counted } = limited('GenerateDataKeyPair', 'SYMMETRIC_DEFAULT', {})
    expect(await ask(3, { KeyPairSpec: 'RSA_2048' })).toEqual(['passed', 'Throttled', 'Throttled'])
    expect(counted.lookUps).toBe(1)
  })

  it('follows new limits at once, and none when they are off', async () => {
    const { ask, quotas } = limited('ListKeys', 'SYMMETRIC_DEFAULT', { 'list-keys': 1 })
    expect(await ask(2)).toEqual(['passed', 'Throttled'])
    quotas.configure({ enabled: false, requestsPerSecond: {} })
    expect(await ask(2)).toEqual(['passed', 'passed'])
    quotas.configure({ requestsPerSecond: { 'list-keys': 1 } })
    expect(await ask(1)).toEqual(['Throttled'])
  })
})
