import { describe, expect, it } from 'vitest'
import { judgeKeySpecs } from '../../../src/cli/key-spec-verdicts.ts'
import type { Capabilities } from '../../../src/hsm/port.ts'

const nothing: Capabilities = {
  probe: 1,
  specs: {},
  algorithms: [],
  oaepSha256: 'none',
  construction: 'none',
  gcmIv: 'none',
  refused: [],
}

function verdict(spec: string, proven: Partial<Capabilities>) {
  return judgeKeySpecs({ ...nothing, ...proven }).find((row) => row.spec === spec)
}

describe('the verdict on a key spec', () => {
  it('names the usages and algorithms that work, and what is lacking within them', () => {
    const proven: Partial<Capabilities> = {
      specs: { RSA_2048: ['ENCRYPT_DECRYPT'] },
      algorithms: ['RSAES_OAEP_SHA_1'],
      refused: [
        { what: 'RSAES_OAEP_SHA_256', why: 'no such hash' },
        { what: 'RSA_2048 for SIGN_VERIFY', why: 'C_GenerateKeyPair: CKR_TEMPLATE_INCONSISTENT' },
      ],
    }
    expect(verdict('RSA_2048', proven)).toEqual({
      spec: 'RSA_2048',
      usages: ['ENCRYPT_DECRYPT'],
      algorithms: ['RSAES_OAEP_SHA_1'],
      refused: [
        { what: 'RSAES_OAEP_SHA_256', why: 'no such hash' },
        { what: 'SIGN_VERIFY', why: 'C_GenerateKeyPair: CKR_TEMPLATE_INCONSISTENT' },
      ],
    })
  })

  it('blames AES-GCM where symmetric keys cannot be made', () => {
    const refused = [{ what: 'AES_GCM', why: 'no IV rule proved right' }]
    expect(verdict('SYMMETRIC_DEFAULT', { refused })).toMatchObject({ usages: [], refused: [{ why: refused[0]?.why }] })
  })

  it('has a row for every spec, with a reason for each that does not work', () => {
    const all = judgeKeySpecs(nothing)
    expect(all).toHaveLength(19)
    expect(all.every(({ refused }) => refused.length > 0 && refused.every(({ why }) => why !== ''))).toBe(true)
  })
})
