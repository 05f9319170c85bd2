/**
 * How many messages a key has encrypted under random 96-bit IVs: at most 2^32 (NIST SP 800-38D, section 8.3). Uses are reserved in the catalog in
 * blocks before they happen, so that a crash counts too many and never too few; an orderly end gives back what is left of a block. What
 * an adopted key did elsewhere is not known here.
 *
 * Taking from a block is synchronous; the next block is fetched while a quarter of the last one is left.
 */
import type { Catalog, KeyEntry, MaterialRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'

export const usesMax = 2 ** 32
/** From here on an operator should know. */
const usesWarned = 2 ** 31
const blockUses = 2 ** 20
const collection = 'key-uses'

export interface UseCountParts {
  readonly catalog: Pick<Catalog, 'findDocument' | 'changeDocument'>
  /** Half of a key's uses are spent; told once for each block. */
  readonly warn?: (keyId: string, reserved: number) => void
  /** A block could not be fetched or given back; the call that needs it fails, others go on. */
  readonly failed?: (cause: unknown) => void
  readonly blockUses?: number
}

export interface UseCounts extends AsyncDisposable {
  /** Spends one use. @throws GatewayError `KeyStateInvalid` when none is left. */
  take(entry: KeyEntry, material: MaterialRecord): undefined | Promise<void>
  /** Uses reserved so far, which is at least as many as there were. */
  reserved(entry: KeyEntry, material: MaterialRecord): Promise<number>
}

interface Block {
  readonly name: string
  readonly keyId: string
  left: number
  /** A fetch under way. */
  fetching: Promise<void> | undefined
  /** Nothing is left to reserve. */
  isLast: boolean
}

export function createUseCounts(parts: UseCountParts): UseCounts {
  const { catalog, warn = () => {}, failed = () => {} } = parts
  const size = parts.blockUses ?? blockUses
  const blocks = new Map<string, Block>()

  function blockOf(entry: KeyEntry, material: MaterialRecord): Block {
    const name = nameOf(entry, material)
    let block = blocks.get(name)
    if (block === undefined) {
      block = { name, keyId: entry.key.keyId, left: 0, fetching: undefined, isLast: false }
      blocks.set(name, block)
    }
    return block
  }

  function fetch(block: Block): Promise<void> {
    block.fetching ??= reserve(block).finally(() => {
      block.fetching = undefined
    })
    return block.fetching
  }

  async function reserve(block: Block): Promise<void> {
    let granted = 0
    const body = await catalog.changeDocument(collection, block.name, (found) => {
      const before = parseReserved(found)
      granted = Math.min(size, usesMax - before)
      return granted === 0 ? undefined : JSON.stringify({ reserved: before + granted })
    })
    const reserved = parseReserved(body)
    block.left += granted
    block.isLast = reserved >= usesMax
    if (reserved >= usesWarned) warn(block.keyId, reserved)
  }

  async function takeLater(block: Block): Promise<void> {
    while (block.left === 0) {
      if (block.isLast) throw exhausted(block.keyId)
      await fetch(block)
    }
    block.left--
  }

  return {
    take(entry, material) {
      const block = blockOf(entry, material)
      if (block.left === 0) return takeLater(block)
      block.left--
      if (block.left < size / 4 && !block.isLast && block.fetching === undefined) fetch(block).catch(failed)
      return undefined
    },
    async reserved(entry, material) {
      return parseReserved(await catalog.findDocument(collection, nameOf(entry, material)))
    },
    async [Symbol.asyncDispose]() {
      for (const block of blocks.values()) {
        await block.fetching?.catch(() => {})
        const { left } = block
        block.left = 0
        if (left === 0) continue
        const giveBack = (found: string | undefined) => JSON.stringify({ reserved: parseReserved(found) - left })
        await catalog.changeDocument(collection, block.name, giveBack).catch(failed)
      }
    },
  }
}

function nameOf({ key }: KeyEntry, { number }: MaterialRecord): string {
  return `${key.account}/${key.region}/${key.keyId}/${number}`
}

function parseReserved(body: string | undefined): number {
  return body === undefined ? 0 : (JSON.parse(body) as { reserved: number }).reserved
}

function exhausted(keyId: string): GatewayError {
  const text = `Key ${keyId} has encrypted as many messages as its random IVs allow; put a new key in its place.`
  return new GatewayError('KeyStateInvalid', { text })
}
