/**
 * Processes that end in the ways that addon.test.ts names: `node edges.ts <scenario> [argument]`. The token is that of the parent,
 * through SOFTHSM2_CONF.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { jobOp, loadAddon } from '../../src/hsm/worker/addon.ts'
import { modulePath, openClient, slotOf, userPin } from './pool-client.ts'

const addon = loadAddon()
const open = async () => {
  const module = addon.openModule(modulePath)
  return { module, ...(await openClient(module, slotOf(module, 'addon'))) }
}
type Opened = Awaited<ReturnType<typeof open>>

function load({ run }: Opened, jobs: number) {
  return Array.from({ length: jobs }, () => run({ op: jobOp.random, outMax: 4096 }))
}

const scenarios: Record<string, (argument: string) => Promise<void> | void> = {
  async 'fall-through'() {
    const opened = await open()
    await load(opened, 10)[9]
    load(opened, 1000)
  },
  async 'exit-under-load'() {
    load(await open(), 4000)
    process.exit(7)
  },
  /** The module at `path` hangs in C_GenerateRandom. */
  async 'exit-while-hung'(path) {
    const module = addon.openModule(path)
    const { slot } = module.slots().find(({ label }) => label === 'hsmgate-test')!
    const { pool, run } = await openClient(module, slot, 1, null)
    void run({ op: jobOp.random, outMax: 8 })
    while (pool.depth().busy === 0) await nextTurn()
    process.exit(7)
  },
  'exit-while-opening'() {
    const module = addon.openModule(modulePath)
    const slot = slotOf(module, 'addon')
    void module.openPool({ slot, sessions: 8, pin: Buffer.from(userPin), onCompletions: () => {} })
    process.exit(7)
  },
  async 'close-under-load'() {
    const one = await open()
    const two = await openClient(one.module, slotOf(one.module, 'addon'))
    const jobs = [...load(one, 2000), ...load({ ...one, ...two }, 2000)]
    await Promise.all([one.pool.close(), two.pool.close()])
    const results = await Promise.all(jobs)
    if (results.some((result) => result.rv !== 0)) process.exitCode = 1
    one.module.finalize()
  },
  async 'worker-threads'() {
    const opened = await open()
    const workers = [1, 2].map(() => new Worker(fileURLToPath(import.meta.url)))
    await Promise.all(workers.map((worker) => once(worker, 'message')))
    await Promise.all(workers.map((worker) => worker.terminate()))
    const results = await Promise.all(load(opened, 100))
    if (results.some((result) => result.rv !== 0)) process.exitCode = 1
  },
  async 'worker-while-opening'() {
    const { pool, module } = await open()
    const worker = new Worker(fileURLToPath(import.meta.url), { argv: ['opening'] })
    await once(worker, 'message')
    await worker.terminate()
    await pool.close()
    module.finalize()
  },
  async 'throwing-callback'() {
    process.on('uncaughtException', () => process.exit(9))
    const module = addon.openModule(modulePath)
    const onCompletions = () => {
      throw new Error('from the callback')
    }
    const slot = slotOf(module, 'addon')
    const pool = await module.openPool({ slot, sessions: 1, pin: Buffer.from(userPin), onCompletions })
    pool.submit(1, jobOp.random, 0, 0n, 0n, null, null, null, 8, 1000)
  },
  async 'wrong-pin'() {
    const module = addon.openModule(modulePath)
    const pin = Buffer.from('wrong pin')
    const options = { slot: slotOf(module, 'addon'), sessions: 2, pin, onCompletions: () => {} }
    const refused = await module.openPool(options).catch((error: unknown) => error as { rv: number; call: string })
    const { rv, call } = refused as { rv: number; call: string }
    process.stdout.write(JSON.stringify({ rv, call, pinWiped: pin.every((byte) => byte === 0) }))
    module.finalize()
  },
  lock(file) {
    process.stdout.write(String(addon.lockFile(file)))
  },
  parent() {
    spawn(process.execPath, [fileURLToPath(import.meta.url), 'orphan'], { stdio: 'inherit' })
  },
  orphan() {
    addon.hardenProcess({ dieWithParent: true })
    const limits = readFileSync('/proc/self/limits', 'utf8')
    process.stdout.write(`${limits.split('\n').find((line) => line.startsWith('Max core file size'))}\n`)
    // Lives until its parent dies.
    setInterval(() => {}, 1000)
  },
}

if (isMainThread) {
  const [scenario = '', argument = ''] = process.argv.slice(2)
  await scenarios[scenario]!(argument)
} else if (process.argv[2] === 'opening') {
  const module = addon.openModule(modulePath)
  const slot = slotOf(module, 'addon')
  void module.openPool({ slot, sessions: 8, pin: null, onCompletions: () => {} })
  parentPort!.postMessage('opening')
} else {
  load(await open(), 4000)
  parentPort!.postMessage('loaded')
}
