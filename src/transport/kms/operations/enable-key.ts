/** EnableKey and DisableKey: one switch. */
import { structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const input = structure({ KeyId: keyId.required() })

function define({ keys }: KmsParts, name: 'EnableKey' | 'DisableKey') {
  return defineKeyOperation({
    name,
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(_request, { entry }) {
      await keys.setEnabled(entry, name === 'EnableKey')
      return { members: null }
    },
  })
}

export function enableKey(parts: KmsParts) {
  return define(parts, 'EnableKey')
}

export function disableKey(parts: KmsParts) {
  return define(parts, 'DisableKey')
}
