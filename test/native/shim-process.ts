/**
 * A process of its own for the tests of the shim: opens the module of its environment, generates a P-256 session key, then makes the
 * calls that its orders ask for, one JSON line each (`{ "op": "sign", "input": "..", "count": 2 }`), and answers each with the return values.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { type Completions, jobOp, loadAddon, type Pkcs11Error } from '../../src/hsm/worker/addon.ts'
import { CKA, CKM } from '../../src/hsm/worker/cryptoki.ts'
import { encodeTemplate } from '../../src/hsm/worker/pack.ts'

export interface Order {
  /** `signVerify` answers with the verdict of the module itself on the signature that came out. */
  readonly op: 'sign' | 'signVerify' | 'random' | 'createKey'
  readonly input?: string
  /** Calls at once; default 1. */
  readonly count?: number
}

const { MODULE = '', LABEL = '', PIN_FILE = '', SESSIONS = '2' } = process.env
const prime256v1 = Buffer.from('06082a8648ce3d030107', 'hex')

interface Result {
  readonly rv: number
  readonly output: Buffer | null
  readonly publicKey: bigint
  readonly privateKey: bigint
}

const waiting = new Map<number, (result: Result) => void>()
let lastId = 0

function onCompletions({ ids, rvs, outputs, handles, handles2 }: Completions): void {
  for (const [i, id] of ids.entries()) {
    waiting.get(id)!({ rv: rvs[i]!, output: outputs[i]!, publicKey: handles[i]!, privateKey: handles2[i]! })
  }
}

async function open() {
  const module = loadAddon().openModule(MODULE)
  const { slot } = module.slots().find(({ label }) => label === LABEL)!
  const pin = readFileSync(PIN_FILE)
  return { module, pool: await module.openPool({ slot, sessions: Number(SESSIONS), pin, onCompletions }) }
}

try {
  const { module, pool } = await open()
  const run = (op: number, mechanism: number, key: bigint, input: Uint8Array | null, aux: Uint8Array | null) =>
    new Promise<Result>((resolve) => {
      waiting.set(++lastId, resolve)
      pool.submit(lastId, op as never, mechanism, key, 0n, null, input, aux, 64, 60_000)
    })
  const createKey = () =>
    run(
      jobOp.generateKeyPair,
      CKM.ecKeyPairGen,
      0n,
      encodeTemplate([
        [CKA.token, false],
        [CKA.ecParams, prime256v1],
        [CKA.verify, true],
      ]),
      encodeTemplate([
        [CKA.token, false],
        [CKA.sign, true],
        [CKA.label, Buffer.from('the signing key')],
      ]),
    )
  const { publicKey, privateKey } = await createKey()
  const perform = async ({ op, input = '' }: Order) => {
    if (op === 'random') return run(jobOp.random, 0, 0n, null, null)
    if (op === 'createKey') return createKey()
    const digest = Buffer.from(input.padEnd(32, '.'))
    const signed = await run(jobOp.sign, CKM.ecdsa, privateKey, digest, null)
    return op === 'sign' ? signed : run(jobOp.verify, CKM.ecdsa, publicKey, digest, signed.output)
  }
  process.stdout.write(`${JSON.stringify({ sessions: pool.depth().sessions })}\n`)
  for await (const line of createInterface(process.stdin)) {
    const order = JSON.parse(line) as Order
    const results = await Promise.all(Array.from({ length: order.count ?? 1 }, () => perform(order)))
    process.stdout.write(`${JSON.stringify(results.map(({ rv }) => rv))}\n`)
  }
  await pool.close()
  module.finalize()
} catch (error) {
  const { call, rv } = error as Pkcs11Error
  process.stdout.write(`${JSON.stringify({ call, rv })}\n`)
}
