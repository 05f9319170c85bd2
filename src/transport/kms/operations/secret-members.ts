/** Output members that hold what must not stay in memory, and their end where an answer does not leave. */
import type { KmsOutput } from './key-operation.ts'

export const secretMembers: ReadonlySet<string> = new Set(['Plaintext', 'PrivateKeyPlaintext', 'SharedSecret'])

export function wipeSecrets({ members }: KmsOutput): void {
  for (const name of secretMembers) {
    const value = members?.[name]
    if (value instanceof Uint8Array) value.fill(0)
  }
}
