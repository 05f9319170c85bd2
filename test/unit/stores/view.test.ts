/** The custom key stores in memory follow what other gateways write. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Catalog, CustomKeyStoreRecord } from '../../../src/catalog/catalog.ts'
import { openStoreView } from '../../../src/stores/view.ts'

const storeOf = (state: string, revision: number) =>
  ({ storeId: 'cks-1', state, revision }) as unknown as CustomKeyStoreRecord

async function open() {
  let row = storeOf('CONNECTED', 1)
  let listener: Parameters<Catalog['onChange']>[0] = () => {}
  let failure: Error | undefined
  let isHeld = false
  const reads: (() => void)[] = []
  const failures: unknown[] = []
  const view = await openStoreView(
    {
      onChange: (next) => {
        listener = next
      },
      async listCustomKeyStores() {
        const found = [row]
        if (failure !== undefined) throw failure
        if (isHeld) await new Promise<void>((resolve) => reads.push(resolve))
        return found
      },
    },
    { changed: () => {}, failed: (cause) => failures.push(cause) },
  )
  return {
    view,
    failures,
    reads,
    hold: () => {
      isHeld = true
    },
    release: () => {
      isHeld = false
    },
    fail: (error: Error | undefined) => {
      failure = error
    },
    write(state: string, revision: number) {
      row = storeOf(state, revision)
      listener({ table: 'custom_key_store', name: '1/us-east-1/cks-1', revision, own: false })
    },
  }
}

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

describe('a custom key store that another gateway changes', () => {
  it('ends as it was written last, whichever read has its answer last', async () => {
    const { view, write, hold, release, reads } = await open()
    using _ = view
    hold()
    write('DISCONNECTING', 2)
    await vi.advanceTimersByTimeAsync(0)
    release()
    write('DISCONNECTED', 3)
    await vi.advanceTimersByTimeAsync(0)
    for (const answer of reads) answer()
    await vi.advanceTimersByTimeAsync(0)
    expect(view.find('cks-1')?.state).toBe('DISCONNECTED')
  })

  it('is read again when it could not be', async () => {
    const { view, failures, write, fail } = await open()
    fail(new Error('the server is starting'))
    write('DISCONNECTED', 2)
    await vi.advanceTimersByTimeAsync(0)
    expect(failures).toHaveLength(1)
    fail(undefined)
    await vi.advanceTimersByTimeAsync(1000)
    expect(view.find('cks-1')?.state).toBe('DISCONNECTED')

    fail(new Error('the catalog is closed'))
    write('CONNECTED', 3)
    view[Symbol.dispose]()
    await vi.advanceTimersByTimeAsync(10_000)
    expect(failures).toHaveLength(2)
  })
})
