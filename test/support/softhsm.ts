/**
 * SoftHSM2 tokens for tests: each in a temporary folder of its own, gone when the test lets go of it.
 *
 *   await using token = await createTestToken()
 */
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { createSoftHsmToken, type SoftHsmToken } from '../../softhsm/token.ts'

export interface TestToken extends SoftHsmToken, AsyncDisposable {
  /** The temporary folder; the token's own folder is `softhsm` in it, the rest is the test's to use. */
  readonly directory: string
}

export async function createTestToken(label = 'hsmgate-test'): Promise<TestToken> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-token-'))
  const remove = () => rm(directory, { recursive: true, force: true })
  try {
    const token = await createSoftHsmToken({ directory: path.join(directory, 'softhsm'), label })
    return { ...token, directory, [Symbol.asyncDispose]: remove }
  } catch (cause) {
    await remove()
    throw cause
  }
}
