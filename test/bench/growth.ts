/** DescribeKey and Encrypt on a token with ever more resident keys: what depends on the number of objects shows here. */
import path from 'node:path'
import { createAsk, encodeRequest, writeRequests } from './client.ts'
import { createKey } from './operations.ts'
import { runProgram } from './processes.ts'
import type { Bench } from './speed.ts'
import { formatTable, median, type Row } from './tables.ts'

export const sizes = [10, 100, 1000] as const
const creationsAtOnce = 4
const rounds = 5
const roundSeconds = 0.3

export async function measureGrowth({ directory, identity, gateway }: Bench): Promise<string> {
  const ask = createAsk(identity, gateway.port)
  const keyIds: string[] = []
  const rows: Row[] = []
  const file = path.join(directory, 'requests')
  for (const size of sizes) {
    const startedMs = performance.now()
    const before = keyIds.length
    const create = async () => {
      while (keyIds.length < size) {
        const at = keyIds.push('') - 1 // a place, so that others don't make it too
        keyIds[at] = await createKey(ask, 'SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
      }
    }
    await Promise.all(Array.from({ length: creationsAtOnce }, create))
    const createMs = (performance.now() - startedMs) / (size - before)
    const p50 = async (target: string, more: object): Promise<number> => {
      // Spread over all keys: one that is asked again and again would be in every cache.
      const picked = Array.from({ length: 64 }, (_, i) => keyIds[Math.floor((i * keyIds.length) / 64)] as string)
      await writeRequests(
        file,
        picked.map((KeyId) => encodeRequest(identity, target, { KeyId, ...more })),
      )
      const args = ['--port', String(gateway.port), '--requests', file, '--connections', '1']
      const values: number[] = []
      for (let round = 0; round <= rounds; round++) {
        const { p50Micros } = await runProgram<{ p50Micros: number }>('load', [
          ...args,
          '--seconds',
          String(roundSeconds),
        ])
        if (round > 0) values.push(p50Micros)
      }
      return median(values)
    }
    rows.push([
      String(size),
      await p50('DescribeKey', {}),
      await p50('Encrypt', { Plaintext: Buffer.alloc(32, 1).toString('base64') }),
      createMs,
    ])
  }
  return formatTable(['keys', 'DescribeKey p50 µs', 'Encrypt p50 µs', 'CreateKey ms each'], rows)
}
