import { beforeEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/error.ts'
import { openTokenSecret } from '../../../src/keys/token-secret.ts'

/** Seals by turning bytes over; what was not sealed by it does not start with its mark. */
const sealer = {
  seal: async (secret: Uint8Array, context: string) =>
    Buffer.concat([Buffer.from(`${context}:`), Buffer.from(secret).map((byte) => byte ^ 255)]),
  async unseal(sealed: Uint8Array, context: string) {
    const mark = Buffer.from(`${context}:`)
    const bytes = Buffer.from(sealed)
    if (!bytes.subarray(0, mark.length).equals(mark)) throw new GatewayError('CiphertextInvalid')
    return bytes.subarray(mark.length).map((byte) => byte ^ 255) as Buffer
  },
}

let settings: Map<string, string>
let replacements: number
const open = (other: Partial<typeof sealer> = {}) =>
  openTokenSecret({
    catalog: {
      getSetting: async (name) => settings.get(name),
      async putSetting(name, value) {
        settings.set(name, value)
      },
    },
    sealer: { ...sealer, ...other },
    replaced: () => void replacements++,
  })

beforeEach(() => {
  settings = new Map()
  replacements = 0
})

describe('the secret of tokens', () => {
  it('is the same at every start, different for each purpose, and nowhere in clear', async () => {
    using first = await open()
    using second = await open()
    const derived = first.derive('grant-token')
    expect(second.derive('grant-token')).toEqual(derived)
    expect(first.derive('session-token')).not.toEqual(derived)
    expect(derived).toHaveLength(32)
    expect(replacements).toBe(0)
    expect(settings.size).toBe(1)
  })

  it('is made anew, and that is told, when what is stored was not sealed by this gateway', async () => {
    const derived = (await open()).derive('grant-token')
    const [name] = settings.keys()
    settings.set(name as string, 'AAAA')
    expect((await open()).derive('grant-token')).not.toEqual(derived)
    expect(replacements).toBe(1)
  })

  it('is not given up because the module fails', async () => {
    const derived = (await open()).derive('grant-token')
    const broken = { unseal: () => Promise.reject(new GatewayError('HsmFailure')) }
    await expect(open(broken)).rejects.toMatchObject({ code: 'HsmFailure' })
    expect((await open()).derive('grant-token')).toEqual(derived)
  })
})
