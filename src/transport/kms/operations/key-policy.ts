/** What must hold for a key policy before it is stored (AWS KMS API Reference, CreateKey and PutKeyPolicy, "Policy"). */
import { PolicyError, parsePolicy } from '../../../authorize/authorize.ts'
import type { Demand } from '../../../call.ts'
import { GatewayError } from '../../../error.ts'
import type { Scope } from '../../../pipeline.ts'
import type { KmsParts } from './key-operation.ts'

const maxBytes = 32_768

/** @throws GatewayError `LimitExceeded` for its size, `PolicyMalformed` for the rest. */
export async function checkKeyPolicy(parts: KmsParts, document: string, scope: Scope): Promise<void> {
  try {
    const { principals } = parsePolicy('key', document, { maxBytes, partition: scope.partition })
    for (const name of principals) {
      if (parts.principalExists !== undefined && !(await parts.principalExists(name))) {
        throw new PolicyError('principals', 'Policy contains a statement with one or more invalid principals.')
      }
    }
  } catch (cause) {
    if (!(cause instanceof PolicyError)) throw cause
    const params = { text: cause.message }
    throw cause.problem === 'size'
      ? new GatewayError('LimitExceeded', params)
      : new GatewayError('PolicyMalformed', params)
  }
}

/** The lockout safety check: under the new policy its author must be able to replace it. `demand` is that of the call itself. */
export async function checkLockout(
  parts: KmsParts,
  document: string,
  demand: Pick<Demand, 'resource' | 'resourceAccount' | 'context'>,
  scope: Scope,
): Promise<void> {
  const { allowed } = await parts.authorizer.decide(scope.principal, {
    ...demand,
    action: 'kms:PutKeyPolicy',
    resourcePolicy: document,
  })
  if (allowed) return
  const text = 'The new key policy will not allow you to update the key policy in the future.'
  throw new GatewayError('PolicyMalformed', { text })
}
