/**
 * What grants mean for a key (AWS KMS Developer Guide, "Grants in AWS KMS"): which operations fit it, what a constraint may say, when a
 * repeated request is the same grant. Whether a call is permitted by a grant is for authorization.
 */
import { randomBytes } from 'node:crypto'
import type { Catalog, GrantRecord, KeyEntry, KeyState } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { GrantTokens } from './grant-tokens.ts'
import { renderKeyArn } from './identifiers.ts'
import { refuseStates } from './key-state.ts'
import type { GrantRequest, KeyService } from './keys.ts'

export type Grants = Pick<
  KeyService,
  | 'createGrant'
  | 'findGrant'
  | 'listGrants'
  | 'listRetirableGrants'
  | 'deleteGrant'
  | 'encodeGrantToken'
  | 'parseGrantToken'
>

/** AWS KMS Developer Guide, "Resource quotas" and "Using grant constraints". */
const grantsPerKey = 50_000
const pairsPerConstraint = 8
const constraintValueChars = 384

const onEveryKey = ['CreateGrant', 'RetireGrant', 'DescribeKey']
const onEveryPublicKey = [...onEveryKey, 'GetPublicKey']
const encryption = ['Encrypt', 'Decrypt', 'ReEncryptFrom', 'ReEncryptTo']

/** AWS KMS Developer Guide, "Grant operations". */
function operationsOf({ key: { spec, usage } }: KeyEntry): readonly string[] {
  switch (usage) {
    case 'ENCRYPT_DECRYPT':
      if (spec !== 'SYMMETRIC_DEFAULT') return [...onEveryPublicKey, ...encryption]
      return [
        ...onEveryKey,
        ...encryption,
        'GenerateDataKey',
        'GenerateDataKeyWithoutPlaintext',
        'GenerateDataKeyPair',
        'GenerateDataKeyPairWithoutPlaintext',
      ]
    case 'SIGN_VERIFY':
      return [...onEveryPublicKey, 'Sign', 'Verify']
    case 'GENERATE_VERIFY_MAC':
      return [...onEveryKey, 'GenerateMac', 'VerifyMac']
    case 'KEY_AGREEMENT':
      return [...onEveryPublicKey, 'DeriveSharedSecret']
    case 'ENCAPSULATE_DECAPSULATE':
      return [...onEveryPublicKey, 'Encapsulate', 'Decapsulate']
    case 'WRAP_UNWRAP':
      return []
  }
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}

/** The texts are ours: AWS's are not documented. */
function checkFit(entry: KeyEntry, { operations, constraints }: GrantRequest): void {
  const { spec, usage } = entry.key
  const allowed = operationsOf(entry)
  for (const operation of operations) {
    if (!allowed.includes(operation)) {
      throw invalid(`Grant operation ${operation} is not supported for key spec ${spec} and key usage ${usage}.`)
    }
  }
  const { encryptionContextEquals, encryptionContextSubset } = constraints ?? {}
  for (const pairs of [encryptionContextEquals, encryptionContextSubset]) {
    if (pairs === undefined) continue
    if (spec !== 'SYMMETRIC_DEFAULT') {
      throw invalid('Encryption context grant constraints are only valid for symmetric encryption KMS keys.')
    }
    const values = Object.values(pairs)
    if (values.length > pairsPerConstraint) {
      throw invalid(`A grant constraint can have at most ${pairsPerConstraint} encryption context pairs.`)
    }
    if (values.some((value) => value.length > constraintValueChars)) {
      throw invalid(
        `The encryption context value in a grant constraint cannot exceed ${constraintValueChars} characters.`,
      )
    }
  }
}

/** Two requests of the same name are one grant when they ask for the same; the order of operations and of pairs says nothing. */
function fingerprint(grant: GrantRequest): string {
  const pairs = (map: Readonly<Record<string, string>> | undefined) => map && Object.entries(map).sort()
  const { constraints } = grant
  return JSON.stringify([
    grant.name,
    grant.granteePrincipal ?? null,
    grant.granteeServicePrincipal ?? null,
    grant.retiringPrincipal ?? null,
    grant.retiringServicePrincipal ?? null,
    grant.issuingAccount,
    [...new Set(grant.operations)].sort(),
    pairs(constraints?.encryptionContextEquals) ?? null,
    pairs(constraints?.encryptionContextSubset) ?? null,
    constraints?.sourceArn ?? null,
  ])
}

export function createGrants(parts: {
  readonly catalog: Catalog
  readonly partition: string
  readonly now: () => number
  readonly grantTokens: GrantTokens
  /** As the key's owner sees it: also of a key whose custom key store is away. */
  readonly stateOf?: (entry: KeyEntry) => KeyState
}): Grants {
  const { catalog, partition, now, grantTokens, stateOf = ({ key }) => key.state } = parts
  return {
    async createGrant(entry, request, { dryRun }) {
      const keyArn = renderKeyArn(partition, entry.key)
      refuseStates(keyArn, stateOf(entry), [
        'Disabled',
        'PendingDeletion',
        'PendingReplicaDeletion',
        'PendingImport',
        'Creating',
      ])
      checkFit(entry, request)
      const { account, region, keyId } = entry.key
      const wanted = fingerprint(request)
      const review = (existing: readonly GrantRecord[]): GrantRecord | undefined => {
        const same =
          request.name === ''
            ? undefined
            : existing.find((grant) => grant.name === request.name && fingerprint(grant) === wanted)
        if (same === undefined && existing.length >= grantsPerKey) {
          throw new GatewayError('LimitExceeded', {
            text: `The key ${keyArn} has reached its limit of ${grantsPerKey} grants.`,
          })
        }
        return same
      }
      if (dryRun) {
        review(await catalog.findGrants(entry.key))
        throw new GatewayError('DryRun')
      }
      const grantId = randomBytes(32).toString('hex')
      const operations = [...new Set(request.operations)]
      return await catalog.createGrant(
        { ...request, operations, account, region, keyId, grantId, createdAt: now() },
        review,
      )
    },

    findGrant: (name, grantId) => catalog.findGrant(name, grantId),

    async listGrants(entry, filter, after, limit) {
      const found: GrantRecord[] = []
      for (const grant of await catalog.findGrants(entry.key)) {
        if (after !== undefined && grant.grantId <= after) continue
        if (filter.grantId !== undefined && grant.grantId !== filter.grantId) continue
        if (filter.granteePrincipal !== undefined && grant.granteePrincipal !== filter.granteePrincipal) continue
        if (
          filter.granteeServicePrincipal !== undefined &&
          grant.granteeServicePrincipal !== filter.granteeServicePrincipal
        )
          continue
        if (found.length === limit) return { grants: found, more: true }
        found.push(grant)
      }
      return { grants: found, more: false }
    },

    async listRetirableGrants(locale, principal, after, limit) {
      const found = await catalog.listRetirableGrants(locale.region, principal, after, limit + 1)
      return { grants: found.slice(0, limit), more: found.length > limit }
    },

    deleteGrant: (grant) => catalog.deleteGrant(grant, grant.grantId),

    encodeGrantToken: (grant) => grantTokens.encode(grant),
    parseGrantToken: (token) => grantTokens.parse(token),
  }
}
