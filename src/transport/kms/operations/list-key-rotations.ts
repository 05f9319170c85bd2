import type { MaterialDescription } from '../../../keys/keys.ts'
import { epochSeconds, renderExpiry } from '../metadata.ts'
import { decodeMarker, pageEnd } from '../pagination.ts'
import { enumeration, integer, structure } from '../schema.ts'
import { defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, marker } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  IncludeKeyMaterial: enumeration(['ALL_KEY_MATERIAL', 'ROTATIONS_ONLY']).default('ROTATIONS_ONLY'),
  Limit: integer({ min: 1, max: 1000 }).default(100),
  Marker: marker,
})

export function listKeyRotations({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'ListKeyRotations',
    readOnly: true,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(request, { entry }) {
      const list = `ListKeyRotations/${entry.key.keyId}/${request.IncludeKeyMaterial}`
      const materials = await keys.listMaterials(entry)
      const isAll = request.IncludeKeyMaterial === 'ALL_KEY_MATERIAL'
      const listed = isAll ? materials : materials.filter(({ rotation }) => rotation !== undefined)
      const after = Number(decodeMarker(list, request.Marker) ?? 0)
      const rest = listed.filter(({ number }) => number > after)
      const page = rest.slice(0, request.Limit)
      const last = page.at(-1)
      return {
        members: {
          Rotations: page.map((material) => render(entry.key.keyId, material)),
          ...pageEnd(list, last === undefined ? undefined : String(last.number), rest.length > page.length),
        },
      }
    },
  })
}

function render(keyIdText: string, material: MaterialDescription): Readonly<Record<string, unknown>> {
  const { rotation, isImported, description, expiresAt } = material
  return {
    KeyId: keyIdText,
    KeyMaterialId: material.materialId,
    ...(description === undefined || description === '' ? {} : { KeyMaterialDescription: description }),
    ...(isImported === undefined ? {} : { ImportState: isImported ? 'IMPORTED' : 'PENDING_IMPORT' }),
    KeyMaterialState: material.state,
    ...(expiresAt === undefined ? {} : renderExpiry(expiresAt)),
    ...(rotation === undefined ? {} : { RotationDate: epochSeconds(rotation.at), RotationType: rotation.type }),
  }
}
