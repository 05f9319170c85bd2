import type { ResolvedKey } from '../../../keys/keys.ts'
import type { Operation } from '../../../pipeline.ts'
import { demandOnKey } from '../conditions.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, structure } from '../schema.ts'
import {
  aliasArn,
  checkAliasName,
  checkTarget,
  demandOnAlias,
  findAliased,
  findTarget,
  recordAlias,
} from './alias-name.ts'
import { changeTimeoutMs, type KmsOutput, type KmsParts, recordKey, requirePresent } from './key-operation.ts'
import { aliasName, keyId } from './members.ts'

const input = structure({ AliasName: aliasName.required(), TargetKeyId: keyId.required() })

interface Resources {
  readonly alias: string
  readonly current: ResolvedKey
  readonly target: ResolvedKey
}

export function updateAlias(parts: KmsParts): Operation<Infer<typeof input>, Resources, KmsOutput> {
  const { keys } = parts
  return {
    name: 'UpdateAlias',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      checkAliasName(request.AliasName)
      checkTarget(request.TargetKeyId)
      return request
    },
    async prepare(request, scope) {
      const alias = aliasArn(parts, request.AliasName, scope)
      const current = await findAliased(parts, request.AliasName, scope)
      const target = await findTarget(parts, request.TargetKeyId, scope)
      return {
        resources: { alias, current, target },
        demands: [
          demandOnAlias('kms:UpdateAlias', alias, scope),
          demandOnKey('kms:UpdateAlias', current, scope),
          demandOnKey('kms:UpdateAlias', target, scope),
        ],
      }
    },
    async perform(request, { target }, scope) {
      await keys.updateAlias(request.AliasName, requirePresent(target).entry, scope)
      return { members: null }
    },
    record: (request, resources) => ({
      requestParameters: recordInput(input, request),
      responseElements: null,
      resources:
        resources === undefined
          ? []
          : [recordAlias(resources.alias, resources.target.account), recordKey(resources.target)],
    }),
  }
}
