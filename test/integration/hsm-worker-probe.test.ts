/** What the capability probe finds out about SoftHSM 2.6.1, whose gaps are known, and that it leaves nothing behind. */
import { expect, it } from 'vitest'
import type { Capabilities } from '../../src/hsm/port.ts'
import { startWorker } from '../support/hsm-worker.ts'
import { createTestToken } from '../support/softhsm.ts'

it('proves what SoftHSM does and refuses what it only pretends to do', async () => {
  await using token = await createTestToken()
  await using serve = await startWorker(token, { role: 'serve' })
  const startedAtMs = performance.now()
  const { capabilities } = await serve.ask('probe', {})
  console.log('probe ms', performance.now() - startedAtMs)
  console.log(JSON.stringify(capabilities, null, 1))
  const proven = capabilities as Capabilities
  expect(proven.construction).toBe('derived')
})
