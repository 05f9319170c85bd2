/**
 * A SoftHSM2 token behind the module that adds ML-DSA and ML-KEM (test/native/pqc-module): what a module of PKCS#11 3.2 shows, with the
 * cryptography of Node's own OpenSSL.
 */
import { fileURLToPath } from 'node:url'
import { createTestToken, type TestToken } from './softhsm.ts'

const pqcModule = fileURLToPath(new URL('../../native/build/hsmgate-pqc.so', import.meta.url))

export interface PqcTokenOptions {
  /** Without the mechanism for an external mu, as PKCS#11 3.2 has it. */
  readonly withoutMu?: boolean
  /** Every signature and every shared secret is wrong by one bit. */
  readonly wrong?: boolean
}

export async function createPqcToken(options: PqcTokenOptions = {}): Promise<TestToken> {
  const token = await createTestToken()
  const env = {
    ...token.env,
    HSMGATE_PQC_MODULE: token.module,
    ...(options.withoutMu === true ? { HSMGATE_PQC_WITHOUT_MU: '1' } : {}),
    ...(options.wrong === true ? { HSMGATE_PQC_WRONG: '1' } : {}),
  }
  return { ...token, module: pqcModule, env }
}
