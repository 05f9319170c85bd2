import { invalid } from '../kms-error.ts'
import { epochSeconds, recordDate, recordOutput } from '../metadata.ts'
import { blob, enumeration, type Infer, string, structure, timestamp } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, keyMaterialId } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  ImportToken: blob({ min: 1, max: 6144 }).required(),
  EncryptedKeyMaterial: blob({ min: 1, max: 6144 }).required(),
  ValidTo: timestamp(),
  ExpirationModel: enumeration(['KEY_MATERIAL_EXPIRES', 'KEY_MATERIAL_DOES_NOT_EXPIRE']).default(
    'KEY_MATERIAL_EXPIRES',
  ),
  ImportType: enumeration(['NEW_KEY_MATERIAL', 'EXISTING_KEY_MATERIAL']),
  KeyMaterialDescription: string({ max: 256, pattern: /^[a-zA-Z0-9:/_\s.-]*$/ }),
  KeyMaterialId: keyMaterialId,
})

type ImportInput = Infer<typeof input>

const dayMs = 24 * 60 * 60 * 1000
const maxValidDays = 365

/** The first of these texts is AWS's; the others are refusals whose words are not documented. */
function check(request: ImportInput): void {
  const { ExpirationModel: model, ValidTo: validTo } = request
  if (model === 'KEY_MATERIAL_EXPIRES' && validTo === undefined) {
    throw invalid('A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES')
  }
  if (model === 'KEY_MATERIAL_DOES_NOT_EXPIRE' && validTo !== undefined) {
    throw invalid('A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE')
  }
  if (request.ImportType === 'NEW_KEY_MATERIAL' && request.KeyMaterialId !== undefined) {
    throw invalid('KeyMaterialId cannot be specified when ImportType is NEW_KEY_MATERIAL')
  }
}

function checkValidTo(validTo: number | undefined, now: number): void {
  if (validTo === undefined) return
  if (validTo <= now) throw invalid('The validTo date must be in the future')
  if (validTo > now + maxValidDays * dayMs) throw invalid(`The validTo date must be within ${maxValidDays} days`)
}

export function importKeyMaterial({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'ImportKeyMaterial',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    check(request) {
      check(request)
      checkValidTo(request.ValidTo, keys.now())
    },
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    conditions: (request) => ({
      more: [
        ['kms:expirationmodel', request.ExpirationModel],
        ...(request.ValidTo === undefined ? [] : [['kms:validto', new Date(request.ValidTo).toISOString()] as const]),
      ],
    }),
    async perform(request, { entry, arn }, scope) {
      const { ImportType: importType, KeyMaterialDescription: description, KeyMaterialId: materialId } = request
      const imported = await keys.importMaterial(
        entry,
        {
          token: request.ImportToken,
          encrypted: request.EncryptedKeyMaterial,
          expiresAt: request.ValidTo ?? null,
          ...(importType === undefined ? {} : { importType }),
          ...(description === undefined ? {} : { description }),
          ...(materialId === undefined ? {} : { materialId }),
        },
        scope.deadline,
      )
      return { members: { KeyId: arn, KeyMaterialId: imported.materialId } }
    },
    respond: ({ members }) => (members === null ? null : recordOutput(members)),
    amend: (recorded, { ValidTo: validTo }) =>
      validTo === undefined ? recorded : { ...recorded, validTo: recordDate(epochSeconds(validTo)) },
  })
}
