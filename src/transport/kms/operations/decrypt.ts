import { GatewayError } from '../../../error.ts'
import { isKmsVisible, type KeyService } from '../../../keys/keys.ts'
import type { Scope } from '../../../pipeline.ts'
import { invalid } from '../kms-error.ts'
import { enumeration, type Infer, list, structure } from '../schema.ts'
import {
  checkGrantTokens,
  defineKeyOperation,
  findKey,
  type KmsParts,
  materialData,
  type NamedKey,
  refuseRecipient,
} from './key-operation.ts'
import {
  ciphertextBlob,
  dryRun,
  encryptionAlgorithm,
  encryptionContext,
  grantTokens,
  keyId,
  recipient,
} from './members.ts'

export const dryRunModifiers = list(enumeration(['IGNORE_CIPHERTEXT']))

const input = structure({
  // Required unless a dry run ignores it; the rule is below.
  CiphertextBlob: ciphertextBlob,
  EncryptionContext: encryptionContext,
  GrantTokens: grantTokens,
  KeyId: keyId,
  EncryptionAlgorithm: encryptionAlgorithm.default('SYMMETRIC_DEFAULT'),
  Recipient: recipient,
  DryRun: dryRun,
  DryRunModifiers: dryRunModifiers,
})

type DecryptInput = Infer<typeof input>

/** What Decrypt and the source side of ReEncrypt share: the ciphertext may be left out by a dry run that only asks for permission. */
export function ignoresCiphertext(
  request: { readonly DryRun?: boolean; readonly DryRunModifiers?: readonly string[] },
  keyReference: string | undefined,
  keyMember: 'KeyId' | 'SourceKeyId',
): boolean {
  if (request.DryRunModifiers === undefined || request.DryRunModifiers.length === 0) return false
  if (request.DryRun !== true) throw invalid('DryRunModifiers can only be specified when DryRun is true.')
  if (keyReference === undefined) throw invalid(`${keyMember} is required when the ciphertext is ignored.`)
  return true
}

/** @throws GatewayError `ValidationFailed` in the framework's words. */
export function requireCiphertext(ciphertext: Buffer | undefined): Buffer {
  if (ciphertext !== undefined) return ciphertext
  throw invalid(
    "1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy constraint: Member must not be null",
  )
}

/** The key that decrypts: the one that is named, else the one that the ciphertext names. A missing one and a forbidden one look alike. */
export async function findDecryptionKey(
  keys: KeyService,
  reference: string | undefined,
  ciphertext: Buffer | undefined,
  scope: Scope,
): Promise<NamedKey> {
  if (reference !== undefined) return { key: await findKey(keys, reference, 'key-or-alias', scope) }
  const denial = () => new GatewayError('CiphertextKeyInaccessible')
  const key = await keys.findByBlob(keys.parseBlob(requireCiphertext(ciphertext)), scope)
  if (key === undefined || (key.entry !== undefined && !isKmsVisible(key.entry))) throw denial()
  return { key, denial }
}

function check(request: DecryptInput): void {
  if (!ignoresCiphertext(request, request.KeyId, 'KeyId')) requireCiphertext(request.CiphertextBlob)
  if (request.KeyId === undefined && request.EncryptionAlgorithm !== 'SYMMETRIC_DEFAULT') {
    throw invalid('KeyId is required to decrypt with an asymmetric KMS key.')
  }
  refuseRecipient(request.Recipient)
}

export function decrypt({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'Decrypt',
    readOnly: true,
    input,
    check,
    isCrossAccount: true,
    async find(request, scope) {
      const named = await findDecryptionKey(keys, request.KeyId, request.CiphertextBlob, scope)
      await checkGrantTokens(keys, request.GrantTokens, named.key)
      return named
    },
    conditions: (request) => ({
      namesAlias: true,
      algorithm: ['kms:encryptionalgorithm', request.EncryptionAlgorithm],
      encryptionContext: request.EncryptionContext,
    }),
    async perform(request, { entry, arn }, scope) {
      if (ignoresCiphertext(request, request.KeyId, 'KeyId')) throw new GatewayError('DryRun')
      const { plaintext, materialId } = await keys.decrypt(
        entry,
        {
          algorithm: request.EncryptionAlgorithm,
          ciphertext: requireCiphertext(request.CiphertextBlob),
          context: request.EncryptionContext ?? {},
          operation: 'Decrypt',
          dryRun: request.DryRun === true,
          requester: scope,
        },
        scope.deadline,
      )
      return {
        members: {
          KeyId: arn,
          Plaintext: plaintext,
          EncryptionAlgorithm: request.EncryptionAlgorithm,
          KeyMaterialId: materialId ?? undefined,
        },
        ...materialData(materialId, keys.storeOf(entry)),
      }
    },
  })
}
