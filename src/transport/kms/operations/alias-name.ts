/** Rules of alias names that the API model does not state, and what the alias operations share. */
import type { Demand } from '../../../call.ts'
import { GatewayError } from '../../../error.ts'
import type { ResolvedKey } from '../../../keys/keys.ts'
import type { Scope } from '../../../pipeline.ts'
import { demandWithoutKey } from '../conditions.ts'
import { invalid, KmsError } from '../kms-error.ts'
import { findKey, type KmsParts, localOnly } from './key-operation.ts'

/** @throws GatewayError in AWS's words; `alias/aws/` belongs to AWS. */
export function checkAliasName(name: string): void {
  if (!name.startsWith('alias/')) {
    throw invalid(
      'Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html',
    )
  }
  if (name.startsWith('alias/aws/')) throw new GatewayError('NotAuthorized')
  if (name.includes(':')) throw invalid(`${name} contains invalid characters for an alias`)
  if (name === 'alias/') throw new KmsError('AliasNameInvalid')
}

/** Aliases point at keys only, by key id or key ARN. */
export function checkTarget(reference: string): void {
  if (reference.startsWith('alias/') || /^arn:[^:]*:kms:[^:]*:[^:]*:alias\//.test(reference)) {
    throw invalid('Aliases must refer to keys. Not aliases')
  }
}

/** The key an alias shall point at; another account's is as good as absent. */
export async function findTarget({ keys }: KmsParts, reference: string, scope: Scope): Promise<ResolvedKey> {
  return localOnly(await findKey(keys, reference, 'key', scope), scope)
}

export function aliasArn({ keys }: KmsParts, name: string, scope: Scope): string {
  return keys.aliasArn({ account: scope.account, region: scope.region, name })
}

/** Permission on the alias itself, which identity policies alone can give. */
export function demandOnAlias(action: string, arn: string, scope: Scope): Demand {
  return demandWithoutKey(action, scope, { resource: arn, hasCallerAccount: true })
}

/** The key behind an existing alias. @throws GatewayError `KeyNotFound` */
export function findAliased({ keys }: KmsParts, name: string, scope: Scope): Promise<ResolvedKey> {
  return findKey(keys, name, 'key-or-alias', scope)
}

export function recordAlias(arn: string, account: string): { account: string; type: string; arn: string } {
  return { account, type: 'AWS::KMS::Alias', arn }
}
