/**
 * Keys of purpose `xks`: the backing key encrypts itself, with AES-256-GCM, in the format that the XKS proxy API fixes. State, usages and the
 * number of messages are checked here, in this order; the module is asked last. Safe for any number of concurrent calls.
 */
import type { Catalog, KeyEntry } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { Hsm } from '../hsm/port.ts'
import { createWhileUsable } from './admission.ts'
import type { AdoptionRecord } from './adopt.ts'
import { hsmKeyOf, currentMaterial as materialOf } from './backing-key.ts'
import { renderKeyArn } from './identifiers.ts'
import { requireUsable } from './key-state.ts'
import type { DirectKeys } from './keys.ts'
import type { UseCounts } from './use-counts.ts'

export interface DirectKeyParts {
  readonly catalog: Catalog
  readonly hsm: Hsm
  readonly partition: string
  /** Wall time in epoch milliseconds. */
  readonly now: () => number
  readonly uses: Pick<UseCounts, 'take'>
}

const tagBytes = 16
const madeHere: readonly string[] = ['encrypt', 'decrypt']

export function createDirectKeys({ catalog, hsm, partition, now, uses }: DirectKeyParts): DirectKeys {
  const whileUsable = createWhileUsable(catalog, partition, now)

  function require(entry: KeyEntry, ...needed: readonly ('encrypt' | 'decrypt')[]): void {
    const arn = renderKeyArn(partition, entry.key)
    requireUsable(arn, entry, now)
    const usages = usagesOf(entry)
    for (const usage of needed) {
      if (!usages.includes(usage))
        throw new GatewayError('KeyUsageInvalid', { text: `The key may not be used to ${usage}.` })
    }
  }

  return {
    find(name) {
      const entry = catalog.peekKey(name)
      return entry === undefined ? catalog.findKey(name).then(onlyDirect) : onlyDirect(entry)
    },

    describe(entry) {
      const { state, currentMaterial } = entry.key
      return { usages: usagesOf(entry), isEnabled: state === 'Enabled', currentMaterial }
    },

    async encrypt(entry, { plaintext, context, digestPrefix }, deadline) {
      require(entry, 'encrypt', ...(digestPrefix === undefined ? [] : (['decrypt'] as const)))
      const material = materialOf(entry)
      const key = hsmKeyOf(entry, material)
      const taken = uses.take(entry, material)
      if (taken !== undefined) await taken
      if (digestPrefix === undefined) {
        const input = { context, data: plaintext }
        return split(await whileUsable(entry, deadline, (limit) => hsm.encrypt(key, 'AES_GCM', input, limit)))
      }
      const input = { context, digestPrefix, data: plaintext }
      const { output, digest } = await whileUsable(entry, deadline, (limit) => hsm.encryptDigested(key, input, limit))
      return { ...split(output), digest }
    },

    async decrypt(entry, { iv, ciphertext, tag, context, material: number }, deadline) {
      require(entry, 'decrypt')
      const known = entry.materials.filter(({ state }) => state !== 'Creating')
      const material = number === undefined ? known[0] : known.find((row) => row.number === number)
      if (material === undefined) throw new GatewayError('CiphertextInvalid')
      const data = Buffer.concat([Buffer.from([iv.length]), iv, ciphertext, tag])
      const key = hsmKeyOf(entry, material)
      return whileUsable(entry, deadline, (limit) => hsm.decrypt(key, 'AES_GCM', { context, data }, limit))
    },
  }
}

/** Keys of other purposes are not there. */
function onlyDirect(entry: KeyEntry | undefined): KeyEntry | undefined {
  return entry?.key.purpose === 'xks' && entry.key.spec === 'SYMMETRIC_DEFAULT' ? entry : undefined
}

function usagesOf({ key }: KeyEntry): readonly string[] {
  return (key.extra.adoption as AdoptionRecord | undefined)?.usages ?? madeHere
}

/** u8 ivLen, iv, ciphertext, tag. */
function split(output: Buffer) {
  const ivEnd = 1 + (output[0] as number)
  const tagAt = output.length - tagBytes
  return { iv: output.subarray(1, ivEnd), ciphertext: output.subarray(ivEnd, tagAt), tag: output.subarray(tagAt) }
}
