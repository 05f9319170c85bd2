/** AES-256 token objects as other tools make them: of a known value, permitting no more than told. Loads the module into the test's own process. */
import { randomBytes } from 'node:crypto'
import { jobOp, loadAddon } from '../../src/hsm/worker/addon.ts'
import { CKA, CKK, CKO } from '../../src/hsm/worker/cryptoki.ts'
import { Jobs, openCall } from '../../src/hsm/worker/jobs.ts'
import { openToken } from '../../src/hsm/worker/login.ts'
import { encodeTemplate } from '../../src/hsm/worker/pack.ts'
import { findProfile } from '../../src/hsm/worker/profiles.ts'
import type { TestToken } from './softhsm.ts'

export interface SecretObject {
  readonly label: string
  /** Names of CKA_ attributes: encrypt, decrypt, wrap, unwrap, sign, verify, derive. */
  readonly usages: readonly ('encrypt' | 'decrypt' | 'wrap' | 'unwrap' | 'sign' | 'verify' | 'derive')[]
  /** 32 bytes; random unless told. */
  readonly value?: Uint8Array
}

const possible = ['encrypt', 'decrypt', 'wrap', 'unwrap', 'sign', 'verify', 'derive'] as const

/** A process can do this for one token: SoftHSM can't be opened again with another configuration. */
export async function createSecretObjects(token: TestToken, objects: readonly SecretObject[]): Promise<void> {
  Object.assign(process.env, token.env)
  const jobs = new Jobs(findProfile('softhsm'))
  const { module, pinFile } = token
  const configuration = { role: 'serve', token: 'test', profile: 'softhsm', sessions: 1 } as const
  const open = await openToken(loadAddon(), { ...configuration, module, label: token.label, pinFile }, jobs)
  try {
    for (const { label, usages, value = randomBytes(32) } of objects) {
      const aux = encodeTemplate([
        [CKA.class, CKO.secretKey],
        [CKA.keyType, CKK.aes],
        [CKA.token, true],
        [CKA.private, true],
        [CKA.sensitive, true],
        [CKA.extractable, false],
        [CKA.label, Buffer.from(label)],
        [CKA.id, randomBytes(8)],
        [CKA.value, Buffer.from(value)],
        ...possible.map((usage) => [CKA[usage], usages.includes(usage)] as const),
      ])
      await jobs.need(openCall('generate', 10_000), jobOp.createObject, { aux })
    }
  } finally {
    await jobs.close()
    open.module.finalize()
  }
}
