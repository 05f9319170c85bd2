/** `npm run fuzz [-- --seconds <n>] [--seed <n>] [file...]`: every property for n seconds (default 60), with inputs nobody has seen. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { parseArgs } from 'node:util'

const { values, positionals } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' } },
  allowPositionals: true,
})
if (!/^[1-9]\d{0,5}$/.test(values.seconds) || !/^-?\d{1,10}$/.test(values.seed ?? '0')) {
  process.stderr.write('usage: npm run fuzz -- [--seconds <1 to 999999>] [--seed <number>] [file...]\n')
  process.exit(2)
}
const vitest = path.resolve(import.meta.dirname, '../../node_modules/vitest/vitest.mjs')
const files = positionals.length > 0 ? positionals : ['test/fuzz']
const { status } = spawnSync(process.execPath, [vitest, 'run', ...files], {
  stdio: 'inherit',
  env: {
    ...process.env,
    HSMGATE_FUZZ_SECONDS: values.seconds,
    ...(values.seed === undefined ? {} : { HSMGATE_FUZZ_SEED: values.seed }),
  },
})
process.exit(status ?? 1)
