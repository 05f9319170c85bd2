import type { GrantTerms } from '../../../call.ts'
import type { GrantRequest } from '../../../keys/keys.ts'
import type { Scope } from '../../../pipeline.ts'
import type { OperationConditions } from '../conditions.ts'
import { invalid, KmsError } from '../kms-error.ts'
import { type Infer, list, structure } from '../schema.ts'
import {
  grantConstraints,
  grantName,
  grantOperation,
  invalidPrincipal,
  parsePrincipal,
  principal,
  servicePrincipal,
} from './grant-members.ts'
import { changeTimeoutMs, checkGrantTokens, defineKeyOperation, findKey, type KmsParts } from './key-operation.ts'
import { dryRun, grantTokens, keyId } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  GranteePrincipal: principal,
  RetiringPrincipal: principal,
  GranteeServicePrincipal: servicePrincipal,
  RetiringServicePrincipal: servicePrincipal,
  Operations: list(grantOperation).required(),
  Constraints: grantConstraints,
  GrantTokens: grantTokens,
  Name: grantName,
  DryRun: dryRun,
})

type CreateGrantInput = Infer<typeof input>

/** The texts are ours: AWS's are not documented. */
function check(request: CreateGrantInput): void {
  const { GranteePrincipal: grantee, GranteeServicePrincipal: service, Constraints: constraints } = request
  if ((grantee === undefined) === (service === undefined)) {
    throw invalid('You must specify either GranteePrincipal or GranteeServicePrincipal, but not both.')
  }
  const retiring = [request.RetiringPrincipal, request.RetiringServicePrincipal].filter((name) => name !== undefined)
  if (retiring.length > 1) {
    throw invalid('You can specify either RetiringPrincipal or RetiringServicePrincipal, but not both.')
  }
  if (service !== undefined && constraints?.SourceArn === undefined) {
    throw invalid('A SourceArn grant constraint is required when GranteeServicePrincipal is specified.')
  }
  if (service !== undefined && retiring.length === 0) {
    throw invalid('A retiring principal is required when GranteeServicePrincipal is specified.')
  }
  if (request.Operations.length === 0) throw invalid('Operations must not be empty.')
  if (constraints?.EncryptionContextEquals !== undefined && constraints.EncryptionContextSubset !== undefined) {
    throw invalid('You can specify either EncryptionContextEquals or EncryptionContextSubset, but not both.')
  }
  if (constraints?.SourceArn !== undefined && !/^arn:[^:]+:[^:]+:[^:]*:[^:]*:.+$/.test(constraints.SourceArn)) {
    throw new KmsError('ArnInvalid', `Invalid arn ${constraints.SourceArn}`)
  }
}

function termsOf({ Operations: operations, Constraints: given }: CreateGrantInput): GrantTerms {
  const constraints = {
    ...(given?.EncryptionContextEquals === undefined ? {} : { encryptionContextEquals: given.EncryptionContextEquals }),
    ...(given?.EncryptionContextSubset === undefined ? {} : { encryptionContextSubset: given.EncryptionContextSubset }),
    ...(given?.SourceArn === undefined ? {} : { sourceArn: given.SourceArn }),
  }
  return { operations, ...(Object.keys(constraints).length === 0 ? {} : { constraints }) }
}

function conditionsOf(request: CreateGrantInput): OperationConditions {
  const { Constraints: constraints } = request
  const more: [string, string | readonly string[]][] = [
    ['kms:grantoperations', request.Operations],
    ['kms:grantisforawsresource', 'false'],
  ]
  const types = constraintTypes(constraints)
  if (types.length > 0) more.push(['kms:grantconstrainttype', types])
  for (const [key, value] of [
    ['kms:granteeprincipal', request.GranteePrincipal],
    ['kms:retiringprincipal', request.RetiringPrincipal],
    ['kms:granteeserviceprincipal', request.GranteeServicePrincipal],
    ['kms:retiringserviceprincipal', request.RetiringServicePrincipal],
    ['kms:grantconstraintsourcearn', constraints?.SourceArn],
  ] as const) {
    if (value !== undefined) more.push([key, value])
  }
  return {
    more,
    offer: termsOf(request),
    encryptionContext: constraints?.EncryptionContextEquals ?? constraints?.EncryptionContextSubset,
  }
}

/** Values of `kms:GrantConstraintType`. */
export function constraintTypes(
  constraints: { readonly EncryptionContextEquals?: unknown; readonly EncryptionContextSubset?: unknown } | undefined,
): string[] {
  return (['EncryptionContextEquals', 'EncryptionContextSubset'] as const).filter(
    (type) => constraints?.[type] !== undefined,
  )
}

/** Both principals must exist; told only to those who may make grants. */
async function planGrant(parts: KmsParts, request: CreateGrantInput, scope: Scope): Promise<GrantRequest> {
  const { principalExists } = parts
  const find = async (name: string): Promise<string> => {
    const arn = parsePrincipal(name, scope.partition)
    if (principalExists !== undefined && !(await principalExists(arn))) throw invalidPrincipal(name)
    return arn
  }
  const { GranteePrincipal: grantee, RetiringPrincipal: retiring } = request
  const { GranteeServicePrincipal: granteeService, RetiringServicePrincipal: retiringService } = request
  return {
    ...termsOf(request),
    name: request.Name ?? '',
    issuingAccount: scope.account,
    ...(grantee === undefined ? {} : { granteePrincipal: await find(grantee) }),
    ...(granteeService === undefined ? {} : { granteeServicePrincipal: granteeService }),
    ...(retiring === undefined ? {} : { retiringPrincipal: await find(retiring) }),
    ...(retiringService === undefined ? {} : { retiringServicePrincipal: retiringService }),
  }
}

export function createGrant(parts: KmsParts) {
  const { keys } = parts
  return defineKeyOperation({
    name: 'CreateGrant',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    check,
    isCrossAccount: true,
    async find(request, scope) {
      const key = await findKey(keys, request.KeyId, 'key', scope)
      await checkGrantTokens(keys, request.GrantTokens, key)
      return { key }
    },
    conditions: conditionsOf,
    async perform(request, { entry }, scope) {
      const plan = await planGrant(parts, request, scope)
      const grant = await keys.createGrant(entry, plan, { dryRun: request.DryRun === true })
      return { members: { GrantToken: keys.encodeGrantToken(grant), GrantId: grant.grantId } }
    },
    // The token is a bearer secret.
    respond: ({ members }, { arn }) => ({ grantId: members?.GrantId, keyId: arn }),
  })
}
