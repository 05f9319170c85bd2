/** `hsmgate tls show`: what a key reference says, without its token. Works offline. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { Command } from 'commander'
import { digestToken } from '../../authenticate/tls-bindings.ts'
import { ProblemsError } from '../../problem.ts'
import { decodeReferencePem, type KeyReference, KeyReferenceError, keyIdOf } from '../../tls-reference.ts'
import { addAction } from '../action.ts'
import { formatFields, show, type Terminal } from '../terminal.ts'
import { readSmallFile } from '../tls-files.ts'

export function addTlsShow(tls: Command, terminal: Terminal): void {
  const one = tls.command('show').description('show what a key reference says, without its token')
  one.argument('<file>', 'key reference, or a file with certificates and one')
  addAction<object, [string]>(one, async (options, file) => {
    const reference = await loadReference(file)
    const { publicKey, endpoint, token, comment } = reference
    const shown = {
      file,
      keyId: keyIdOf(publicKey).toString('hex'),
      key: describeKey(publicKey),
      endpoint: endpoint ?? null,
      tokenDigest: token === undefined ? null : digestToken(token).toString('hex'),
      comment: comment ?? null,
    }
    token?.fill(0)
    show(terminal, options, shown, (fields) =>
      formatFields([
        ['key', fields.key],
        ['key id', fields.keyId],
        ['endpoint', fields.endpoint ?? 'the first one'],
        ['token', fields.tokenDigest === null ? 'none' : `there is one, SHA-256 ${fields.tokenDigest}`],
        ...(fields.comment === null ? [] : [['comment', fields.comment] as const]),
      ]),
    )
  })
}

/** @throws ProblemsError when the file can't be read or is no reference. */
export async function loadReference(file: string): Promise<KeyReference> {
  const text = await readSmallFile(file)
  try {
    return decodeReferencePem(text)
  } catch (cause) {
    if (!(cause instanceof KeyReferenceError)) throw cause
    const remedy = 'write it anew with hsmgate tls bind'
    throw new ProblemsError([{ at: file, cause: `is no key reference: ${cause.message}`, remedy }], { cause })
  }
}

function describeKey(spki: Buffer): string {
  let key: KeyObject
  try {
    key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  } catch {
    return 'of a kind that is not known here'
  }
  const { modulusLength, namedCurve } = key.asymmetricKeyDetails ?? {}
  return [key.asymmetricKeyType, modulusLength, namedCurve].filter((part) => part !== undefined).join(' ')
}
