/**
 * A process that opens the HSM layer with the options in its first argument (JSON) and says so on standard output, for tests that kill it. Prints
 * the group's workers as one line of JSON and then waits to be killed.
 */
import { type HsmOptions, openHsm } from '../../src/hsm/hsm.ts'

const hsm = await openHsm(JSON.parse(process.argv[2]!) as HsmOptions)
while (hsm.groups()[0]!.workers.some(({ state }) => state !== 'ready'))
  await new Promise((resolve) => setTimeout(resolve, 10))
process.stdout.write(`${JSON.stringify(hsm.groups()[0]!.workers.map(({ pid }) => pid))}\n`)
setInterval(() => {}, 1000)
