import { recordOutput } from '../metadata.ts'
import { structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, keyMaterialId } from './members.ts'

const input = structure({ KeyId: keyId.required(), KeyMaterialId: keyMaterialId })

export function deleteImportedKeyMaterial({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'DeleteImportedKeyMaterial',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(request, { entry, arn }, scope) {
      const { materialId } = await keys.deleteMaterial(entry, request.KeyMaterialId, scope.deadline)
      return { members: { KeyId: arn, KeyMaterialId: materialId } }
    },
    respond: ({ members }) => (members === null ? null : recordOutput(members)),
  })
}
