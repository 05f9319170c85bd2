import type { ResolvedKey } from '../../../keys/keys.ts'
import type { Operation } from '../../../pipeline.ts'
import { demandOnKey } from '../conditions.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, structure } from '../schema.ts'
import { aliasArn, checkAliasName, demandOnAlias, findAliased, recordAlias } from './alias-name.ts'
import { changeTimeoutMs, type KmsOutput, type KmsParts, recordKey } from './key-operation.ts'
import { aliasName } from './members.ts'

const input = structure({ AliasName: aliasName.required() })

interface Resources {
  readonly alias: string
  readonly key: ResolvedKey
}

/** Works in every state of the key. */
export function deleteAlias(parts: KmsParts): Operation<Infer<typeof input>, Resources, KmsOutput> {
  const { keys } = parts
  return {
    name: 'DeleteAlias',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      checkAliasName(request.AliasName)
      return request
    },
    async prepare(request, scope) {
      const alias = aliasArn(parts, request.AliasName, scope)
      const key = await findAliased(parts, request.AliasName, scope)
      return {
        resources: { alias, key },
        demands: [demandOnAlias('kms:DeleteAlias', alias, scope), demandOnKey('kms:DeleteAlias', key, scope)],
      }
    },
    async perform(request, _resources, scope) {
      await keys.deleteAlias(request.AliasName, scope)
      return { members: null }
    },
    record: (request, resources) => ({
      requestParameters: recordInput(input, request),
      responseElements: null,
      resources:
        resources === undefined ? [] : [recordAlias(resources.alias, resources.key.account), recordKey(resources.key)],
    }),
  }
}
