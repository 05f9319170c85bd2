import type { GrantRecord } from '../../../catalog/catalog.ts'
import { GatewayError } from '../../../error.ts'
import type { ResolvedKey } from '../../../keys/keys.ts'
import type { Operation, Scope } from '../../../pipeline.ts'
import { demandOnKey } from '../conditions.ts'
import { invalid, KmsError } from '../kms-error.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, structure } from '../schema.ts'
import { constraintTypes } from './create-grant.ts'
import { checkGrantId, grantId, grantNotFound, grantToken } from './grant-members.ts'
import { changeTimeoutMs, findKey, type KmsOutput, type KmsParts, recordKey } from './key-operation.ts'
import { dryRun, keyId } from './members.ts'

const input = structure({ GrantToken: grantToken, KeyId: keyId, GrantId: grantId, DryRun: dryRun })

type RetireGrantInput = Infer<typeof input>

interface Resources {
  readonly key: ResolvedKey
  /** Undefined only where authorization denies. */
  readonly grant: GrantRecord | undefined
}

/** The grant that the request names, by a token of it or by key and id. */
async function findNamed({ keys }: KmsParts, request: RetireGrantInput, scope: Scope): Promise<Resources> {
  if (request.GrantToken !== undefined) {
    const named = keys.parseGrantToken(request.GrantToken)
    if (named === undefined || named.region !== scope.region) throw new KmsError('GrantTokenInvalid')
    const key = await findKey(keys, keys.keyArn(named), 'key', scope)
    return { key, grant: await findGrant(key, named.grantId) }
  }
  const key = await findKey(keys, request.KeyId as string, 'key', scope)
  return { key, grant: await findGrant(key, request.GrantId as string) }

  /** In one's own account a grant that is gone is told so; in others it looks like one that may not be retired. */
  async function findGrant(key: ResolvedKey, id: string): Promise<GrantRecord | undefined> {
    const grant = key.entry && (await keys.findGrant(key.entry.key, id))
    if (grant === undefined && key.account === scope.account) throw grantNotFound(id)
    return grant
  }
}

export function retireGrant(parts: KmsParts): Operation<RetireGrantInput, Resources, KmsOutput> {
  const { keys } = parts
  return {
    name: 'RetireGrant',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      const { GrantToken: token, KeyId: key, GrantId: id } = request
      const byToken = token !== undefined && key === undefined && id === undefined
      const byId = token === undefined && key !== undefined && id !== undefined
      if (!byToken && !byId) throw invalid('You must specify either GrantToken or both KeyId and GrantId.')
      if (id !== undefined) checkGrantId(id)
      // "Specify the key ARN": the one operation that takes no bare id.
      if (key !== undefined && !key.startsWith('arn:')) throw new KmsError('ArnInvalid', `Invalid arn ${key}`)
      return request
    },
    async prepare(request, scope) {
      const resources = await findNamed(parts, request, scope)
      const { grant } = resources
      const { encryptionContextEquals, encryptionContextSubset } = grant?.constraints ?? {}
      const types = constraintTypes({
        EncryptionContextEquals: encryptionContextEquals,
        EncryptionContextSubset: encryptionContextSubset,
      })
      const demand = demandOnKey('kms:RetireGrant', resources.key, scope, {
        ...(grant === undefined ? {} : { grantId: grant.grantId }),
        encryptionContext: encryptionContextEquals ?? encryptionContextSubset,
        more: types.length === 0 ? [] : [['kms:grantconstrainttype', types]],
      })
      return { resources, demands: [demand] }
    },
    async perform(request, { grant }) {
      if (grant === undefined) throw new TypeError('the retirement of an absent grant was allowed')
      if (request.DryRun === true) throw new GatewayError('DryRun')
      if (!(await keys.deleteGrant(grant))) throw grantNotFound(grant.grantId)
      return { members: null }
    },
    record(request, resources, output) {
      const recorded = recordInput(input, request)
      return {
        requestParameters: Object.keys(recorded).length === 0 ? null : recorded,
        responseElements: output === undefined || resources === undefined ? null : { keyId: resources.key.arn },
        resources: resources === undefined ? [] : [recordKey(resources.key)],
        ...(resources?.grant === undefined ? {} : { additionalEventData: { grantId: resources.grant.grantId } }),
      }
    },
  }
}
