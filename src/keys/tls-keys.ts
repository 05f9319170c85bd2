/**
 * Keys of TLS servers (purpose `tls`). Their use is to sign handshakes at the signing socket, where a binding says what; the KMS door shows and
 * manages them like its own, but whoever may call Sign there could sign anything in a server's name, so it refuses unless a binding says `any`.
 */
import { createHash } from 'node:crypto'
import type { Deadline } from '../call.ts'
import type { KeyEntry, KeyName } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { Hsm } from '../hsm/port.ts'
import type { WhileUsable } from './admission.ts'
import { algorithms, algorithmsOf, type SigningAlgorithm } from './algorithms.ts'
import { currentMaterial, hsmKeyOf } from './backing-key.ts'
import { renderKeyArn } from './identifiers.ts'
import { requireUsable } from './key-state.ts'
import type { TlsSigning } from './keys.ts'

/** @throws GatewayError `KeyUsageInvalid`, with a text for the caller as well as for the operator who reads it in the audit record. */
export function refuseTlsKey(
  keyArn: string,
  { key }: KeyEntry,
  mayTlsKeySign: (key: KeyName) => boolean = () => false,
): void {
  if (key.purpose !== 'tls' || mayTlsKeySign(key)) return
  const text = `${keyArn} key usage is TLS offload which is not valid for Sign. A binding of the key with the policy any permits it.`
  throw new GatewayError('KeyUsageInvalid', { text })
}

export function createTlsSigning(parts: {
  readonly hsm: Hsm
  readonly partition: string
  readonly now: () => number
  readonly whileUsable: WhileUsable
}): TlsSigning {
  const { hsm, partition, now, whileUsable } = parts
  return {
    async signCertificate(entry, tbs, deadline: Deadline) {
      const keyArn = renderKeyArn(partition, entry.key)
      const { purpose, spec, usage } = entry.key
      if (purpose !== 'tls' || usage !== 'SIGN_VERIFY') {
        throw new GatewayError('ValidationFailed', { text: `${keyArn} is not a key of a TLS server (purpose tls).` })
      }
      requireUsable(keyArn, entry, now)
      // the first one of each spec is the one that every verifier of certificates knows
      const algorithm = algorithms.get(algorithmsOf(spec, usage)[0] ?? '') as SigningAlgorithm
      const input = algorithm.hash === null ? tbs : createHash(algorithm.hash).update(tbs).digest()
      const key = hsmKeyOf(entry, currentMaterial(entry))
      return whileUsable(entry, deadline, (limit) => hsm.sign(key, algorithm.hsm, input, limit))
    },
  }
}
