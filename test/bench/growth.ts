/**
 * DescribeKey and Encrypt while three things grow by themselves: keys resident on the token, rows of the catalog without an object on the token, and
 * grants of the key that is used. What depends on their number shows here.
 */
import path from 'node:path'
import { type Ask, createAsk, encodeRequest, type Identity, loadIdentity, writeRequests } from './client.ts'
import { multiplyGrants } from './many-grants.ts'
import { createKey } from './operations.ts'
import { type Running, runProgram } from './processes.ts'
import type { Bench } from './speed.ts'
import { formatTable, median, type Row } from './tables.ts'

const residentSizes = [10, 100, 1000] as const
const rowSizes = [10, 100, 1000, 10_000] as const
const grantSizes = [0, 1000, 50_000] as const
const creationsAtOnce = 8
const rounds = 5
const roundSeconds = 0.3
const mostAttempts = 10

/** A key for each number of grants. */
export type GrantedKeys = readonly { readonly keyId: string; readonly grants: number }[]

/**
 * Makes the keys with many grants in a development folder whose gateway `running` is ended by that: the grants are put in while it stands still.
 */
export async function prepareGrants(directory: string, running: Running): Promise<GrantedKeys> {
  const identity = await loadIdentity(path.join(directory, 'credentials'))
  const ask = createAsk(identity, running.port)
  const keys: { keyId: string; grants: number }[] = []
  for (const grants of grantSizes) {
    const { KeyMetadata } = (await ask('CreateKey', {})) as unknown as { KeyMetadata: { KeyId: string; Arn: string } }
    const account = KeyMetadata.Arn.split(':')[4] as string
    const grant = { KeyId: KeyMetadata.KeyId, GranteePrincipal: account, Operations: ['Encrypt', 'DescribeKey'] }
    if (grants > 0) await ask('CreateGrant', grant)
    keys.push({ keyId: KeyMetadata.KeyId, grants })
  }
  await running[Symbol.asyncDispose]()
  for (const { keyId, grants } of keys) if (grants > 0) await multiplyGrants(directory, keyId, grants)
  return keys
}

export async function measureGrowth({ directory, identity, gateway }: Bench, granted: GrantedKeys): Promise<string> {
  const ask = createAsk(identity, gateway.port)
  const file = path.join(directory, 'requests')
  const p50 = (keyIds: readonly string[]) => measure(identity, gateway.port, file, keyIds)

  const residentKeys: string[] = []
  const resident: Row[] = []
  for (const size of residentSizes) {
    const createMs = await grow(residentKeys, size, () => createKey(ask, 'SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT'))
    resident.push([String(size), ...(await p50(residentKeys)), createMs])
  }

  const ten = residentKeys.slice(0, 10)
  const rowKeys: string[] = []
  const rows: Row[] = []
  for (const size of rowSizes) {
    const createMs = await grow(rowKeys, size, () => createRow(ask))
    rows.push([String(size), ...(await p50(ten)), createMs])
  }

  const grants: Row[] = []
  for (const { keyId, grants: size } of granted) {
    // The first call reads them all; on a busy machine that may take longer than a call has.
    const startedMs = performance.now()
    const isServed = () => ask('Encrypt', { KeyId: keyId, Plaintext: plaintext }).then(Boolean, () => false)
    let attempts = 0
    while (!(await isServed())) if (++attempts === mostAttempts) throw new Error(`no Encrypt with ${size} grants`)
    const firstMs = performance.now() - startedMs
    grants.push([String(size), ...(await p50([keyId])), firstMs])
  }
  const columns = ['DescribeKey p50 µs', 'Encrypt p50 µs']
  return [
    formatTable(['keys on the token', ...columns, 'CreateKey ms each'], resident),
    formatTable(['rows of other keys', ...columns, 'CreateKey ms each'], rows),
    formatTable(['grants on the key', ...columns, 'first call ms'], grants),
  ].join('\n')
}

const plaintext = Buffer.alloc(32, 1).toString('base64')

/** A key that still waits for its material: rows, and no object. */
async function createRow(ask: Ask): Promise<string> {
  const { KeyMetadata } = (await ask('CreateKey', { Origin: 'EXTERNAL' })) as unknown as {
    KeyMetadata: { KeyId: string }
  }
  return KeyMetadata.KeyId
}

/** Fills `keyIds` up to `size`; milliseconds for each, several at once. */
async function grow(keyIds: string[], size: number, create: () => Promise<string>): Promise<number> {
  const startedMs = performance.now()
  const before = keyIds.length
  const createUntilFull = async () => {
    while (keyIds.length < size) {
      const at = keyIds.push('') - 1 // a place, so that others don't make it too
      keyIds[at] = await create()
    }
  }
  await Promise.all(Array.from({ length: creationsAtOnce }, createUntilFull))
  return (performance.now() - startedMs) / (size - before)
}

/** Medians of DescribeKey and Encrypt over one connection. */
async function measure(identity: Identity, port: number, file: string, keyIds: readonly string[]): Promise<number[]> {
  const medians: number[] = []
  for (const [target, more] of [
    ['DescribeKey', {}],
    ['Encrypt', { Plaintext: plaintext }],
  ] as const) {
    // Spread over all keys: one that is asked again and again would be in every cache.
    const picked = Array.from({ length: 64 }, (_, i) => keyIds[Math.floor((i * keyIds.length) / 64)] as string)
    await writeRequests(
      file,
      picked.map((KeyId) => encodeRequest(identity, target, { KeyId, ...more })),
    )
    const load = ['--port', String(port), '--requests', file, '--connections', '1', '--seconds', String(roundSeconds)]
    const values: number[] = []
    for (let round = 0; round <= rounds; round++) {
      const { p50Micros } = await runProgram<{ p50Micros: number }>('load', load)
      if (round > 0) values.push(p50Micros)
    }
    medians.push(median(values))
  }
  return medians
}
