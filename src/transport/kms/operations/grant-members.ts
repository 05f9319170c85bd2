/**
 * Members of the operations on grants, with the limits of the API model (AWS KMS API Reference), and grants as they are answered. A
 * principal of a grant is an ARN; an account may be given by its id.
 */
import type { GrantRecord } from '../../../catalog/catalog.ts'
import { GatewayError } from '../../../error.ts'
import { KmsError } from '../kms-error.ts'
import { epochSeconds } from '../metadata.ts'
import { enumeration, integer, string, stringMap, structure } from '../schema.ts'

export const grantId = string({ min: 1, max: 128 })
export const grantToken = string({ min: 1, max: 8192 }).unrecorded()
export const grantName = string({ min: 1, max: 256, pattern: /^[a-zA-Z0-9:/_-]+$/ })
export const principal = string({ min: 1, max: 256, pattern: /^[\w+=,.@:/-]+$/ })
/** `<service>[.<region>].amazonaws.com` and the like. */
export const servicePrincipal = string({ min: 1, max: 256, pattern: /^[a-z0-9.-]+$/ })
export const grantLimit = integer({ min: 1, max: 100 }).default(50)

export const grantOperation = enumeration([
  'Decrypt',
  'Encrypt',
  'GenerateDataKey',
  'GenerateDataKeyWithoutPlaintext',
  'ReEncryptFrom',
  'ReEncryptTo',
  'Sign',
  'Verify',
  'GetPublicKey',
  'CreateGrant',
  'RetireGrant',
  'DescribeKey',
  'GenerateDataKeyPair',
  'GenerateDataKeyPairWithoutPlaintext',
  'GenerateMac',
  'VerifyMac',
  'DeriveSharedSecret',
  'Encapsulate',
  'Decapsulate',
])

export const grantConstraints = structure({
  EncryptionContextSubset: stringMap(),
  EncryptionContextEquals: stringMap(),
  SourceArn: string({ min: 1, max: 2048 }),
})

const accountForm = /^\d{12}$/
const principalForm =
  /^arn:(aws[a-z-]*):(?:iam::\d{12}:(?:root|(?:user|role)\/[\x21-\x7e]*[^/])|sts::\d{12}:(?:assumed-role\/[\w+=,.@-]+|federated-user)\/[\w+=,.@-]+)$/

/** The principal as it is stored. @throws KmsError `ArnInvalid` for any other form than those AWS documents. */
export function parsePrincipal(text: string, partition: string): string {
  if (accountForm.test(text)) return `arn:${partition}:iam::${text}:root`
  if (principalForm.exec(text)?.[1] !== partition) throw invalidPrincipal(text)
  return text
}

export function invalidPrincipal(text: string): KmsError {
  return new KmsError('ArnInvalid', `ARN does not refer to a valid principal: ${text}`)
}

/** @throws KmsError `GrantIdInvalid` for what can be no grant id of this gateway. */
export function checkGrantId(text: string): void {
  if (!/^[0-9a-f]{64}$/.test(text)) throw new KmsError('GrantIdInvalid')
}

/** For a grant of the caller's own account. Terraform takes this name for a grant that is gone. */
export function grantNotFound(id: string): GatewayError {
  return new GatewayError('NotFound', { text: `Grant ID ${id} not found` })
}

/** GrantListEntry. */
export function renderGrant(grant: GrantRecord, partition: string): Readonly<Record<string, unknown>> {
  const { constraints } = grant
  return {
    KeyId: grant.keyArn,
    GrantId: grant.grantId,
    Name: grant.name,
    CreationDate: epochSeconds(grant.createdAt),
    GranteePrincipal: grant.granteePrincipal,
    GranteeServicePrincipal: grant.granteeServicePrincipal,
    RetiringPrincipal: grant.retiringPrincipal,
    RetiringServicePrincipal: grant.retiringServicePrincipal,
    IssuingAccount: `arn:${partition}:iam::${grant.issuingAccount}:root`,
    Operations: grant.operations,
    ...(constraints === undefined
      ? {}
      : {
          Constraints: {
            EncryptionContextEquals: constraints.encryptionContextEquals,
            EncryptionContextSubset: constraints.encryptionContextSubset,
            SourceArn: constraints.sourceArn,
          },
        }),
  }
}
