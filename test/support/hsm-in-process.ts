/**
 * The worker's parts inside the test's own process on a real token, for tests that need to see sessions' objects. A process loads a
 * PKCS#11 module once, so a test file opens one token.
 */
import { jobOp, loadAddon } from '../../src/hsm/worker/addon.ts'
import { CKA, CKO } from '../../src/hsm/worker/cryptoki.ts'
import { type Facts, proveFacts } from '../../src/hsm/worker/facts.ts'
import { HandleCache } from '../../src/hsm/worker/handles.ts'
import { type Call, Jobs, openCall } from '../../src/hsm/worker/jobs.ts'
import { openToken } from '../../src/hsm/worker/login.ts'
import { Objects } from '../../src/hsm/worker/objects.ts'
import { decodeHandles, encodeTemplate } from '../../src/hsm/worker/pack.ts'
import { findProfile } from '../../src/hsm/worker/profiles.ts'
import { createTestToken } from './softhsm.ts'

export interface InProcess extends AsyncDisposable {
  readonly jobs: Jobs
  readonly objects: Objects
  readonly facts: Facts
  /** Handles of the session secrets that exist now. */
  sessionSecrets(): Promise<readonly bigint[]>
  call(): Call
}

export async function openInProcess(): Promise<InProcess> {
  const token = await createTestToken()
  Object.assign(process.env, token.env)
  const jobs = new Jobs(findProfile('softhsm'))
  const configuration = {
    role: 'serve',
    token: 'test',
    module: token.module,
    label: token.label,
    pinFile: token.pinFile,
    profile: 'softhsm',
    sessions: 2,
  } as const
  const { module, mechanisms } = await openToken(loadAddon(), configuration, jobs)
  const call = () => openCall('encrypt', 20_000)
  const facts = await proveFacts(jobs, call(), mechanisms)
  const objects = new Objects(jobs, new HandleCache(jobs))
  const secrets = encodeTemplate([
    [CKA.class, CKO.secretKey],
    [CKA.token, false],
  ])
  return {
    jobs,
    objects,
    facts,
    call,
    async sessionSecrets() {
      const { output } = await jobs.need(call(), jobOp.find, { aux: secrets, outMax: 8 * 4096 })
      return decodeHandles(output as Buffer)
    },
    async [Symbol.asyncDispose]() {
      await jobs.close()
      module.finalize()
      await token[Symbol.asyncDispose]()
    },
  }
}
