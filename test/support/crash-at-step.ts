/**
 * `node crash-at-step.ts <options as JSON>`: makes, changes or destroys a key as the gateway does, on its state, and kills itself right after one
 * step, so that nothing of the rest happens: no handler, no undo. The ports are the real ones; only what follows the step is missing.
 */
import { randomUUID } from 'node:crypto'
import { deadlineIn } from '../../src/call.ts'
import type { Catalog, KeyEntry, MaterialRecord } from '../../src/catalog/catalog.ts'
import { openCatalog } from '../../src/catalog/open.ts'
import { type HsmOptions, openHsm } from '../../src/hsm/hsm.ts'
import type { Hsm } from '../../src/hsm/port.ts'
import { createBackedKey } from '../../src/keys/create-key.ts'
import { destroyDueKeys } from '../../src/keys/deletion.ts'
import { createKeyTurns } from '../../src/keys/key-turns.ts'
import { removeMaterial } from '../../src/keys/remove-material.ts'
import { createRotation } from '../../src/keys/rotation.ts'
import { openCatalogSeal, openSystemKeys } from '../../src/keys/system-keys.ts'

export interface CrashOptions {
  readonly catalogFile: string
  readonly hsm: Pick<HsmOptions, 'tokens' | 'groups' | 'stateDirectory'>
  /** All but `create` work on the key `keyId`; `remove` removes its imported material. */
  readonly work: 'create' | 'destroy' | 'rotate' | 'remove'
  readonly keyId?: string
  /** Method of the catalog or the HSM layer, and after which of its calls to die. */
  readonly after: readonly [method: string, call: number]
  readonly spec: 'SYMMETRIC_DEFAULT' | 'ECC_NIST_P256'
  /** Wall time, epoch milliseconds. */
  readonly now: number
}

const options = JSON.parse(process.argv[2]!) as CrashOptions
const now = () => options.now
await using catalog = await openCatalog({ kind: 'sqlite', file: options.catalogFile, now })
await using hsm = await openHsm({ allowImportThroughMemory: false, ...options.hsm })
const creation = { catalog, hsm, now, group: 'default' }
await openCatalogSeal(creation)
await openSystemKeys(creation)

let left = options.after[1]
const parts = { ...creation, catalog: dieAfter<Catalog>(catalog), hsm: dieAfter<Hsm>(hsm) }
const deadline = () => deadlineIn(30_000)

if (options.work === 'create') {
  const plan = {
    name: { account: '000000000000', region: 'us-east-1', keyId: randomUUID() },
    spec: options.spec,
    usage: options.spec === 'SYMMETRIC_DEFAULT' ? 'ENCRYPT_DECRYPT' : 'SIGN_VERIFY',
    purpose: 'kms',
    origin: 'AWS_KMS',
    description: `killed after ${options.after.join(' ')}`,
    policy: '',
    tags: {},
    multiRegion: false,
    group: 'default',
  } as const
  await createBackedKey(parts, plan, deadline())
} else if (options.work === 'rotate') {
  const rotation = createRotation({ ...parts, partition: 'aws', turns: createKeyTurns(), wake: () => {} })
  await rotation.rotateOnDemand(await getKey(), deadline())
} else if (options.work === 'remove') {
  const entry = await getKey()
  await removeMaterial(parts, entry, entry.materials[0] as MaterialRecord, deadline())
} else {
  const dueDeletions = async (before: number) =>
    (await catalog.dueDeletions(before)).filter(({ keyId }) => keyId === options.keyId)
  await destroyDueKeys({
    ...parts,
    catalog: { ...parts.catalog, dueDeletions },
    deadline,
    gate: { check: async () => ({ now: options.now, pauses: [] }) },
    deleted: async () => dieAt('deleted'),
    failed: (_name, cause) => {
      throw cause
    },
    paused: () => {},
  })
}
throw new Error(`there was no ${options.after.join(' ')}`)

async function getKey(): Promise<KeyEntry> {
  const name = { account: '000000000000', region: 'us-east-1', keyId: options.keyId as string }
  return (await catalog.findKey(name)) as KeyEntry
}

function dieAt(method: string): void {
  if (method === options.after[0] && --left === 0) process.kill(process.pid, 'SIGKILL')
}

function dieAfter<Port extends object>(port: Port): Port {
  return new Proxy(port, {
    get(target, name) {
      const value = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      return (...words: unknown[]) => {
        const result = value.apply(target, words)
        if (!(result instanceof Promise)) return result
        return result.then((answer) => {
          dieAt(String(name))
          return answer
        })
      }
    },
  })
}
