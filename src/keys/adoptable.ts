/** What an object that is in the token can be as a key of the gateway: by its label, its usages and its type. Pure. */
import { GatewayError } from '../error.ts'
import type { AdoptableObject, KeySpec, KeyUsage, Purpose } from '../hsm/port.ts'
import { specs } from './algorithms.ts'
import { isKeyId } from './identifiers.ts'
import type { AdoptKeyRequest } from './keys.ts'

export interface OwnLabel {
  readonly purpose: Purpose
  readonly keyId: string
  readonly number: number
}

/** `hsmgate:<key id>:<n>`, or with `-<purpose>`; workers refuse labels that only look like it. @throws GatewayError */
export function readOwnLabel(label: string): OwnLabel | undefined {
  if (!label.startsWith('hsmgate')) return undefined
  const [, purpose = 'kms', keyId = '', number = ''] =
    /^hsmgate(?:-(tls|xks|system))?:([^:]+):(\d{1,6})$/.exec(label) ?? []
  if (purpose === 'system') throw invalid('The object is a key of the gateway itself, which no operator registers.')
  if (!isKeyId(keyId))
    throw invalid(`The label ${JSON.stringify(label)} looks like one of hsmgate's own and is none: change it first.`)
  return { purpose: purpose as Purpose, keyId, number: Number(number) }
}

export function choosePurpose(asked: AdoptKeyRequest['purpose'], own: OwnLabel | undefined): Purpose {
  if (own !== undefined && asked !== undefined && asked !== own.purpose) {
    throw invalid(`The object is of purpose ${own.purpose}, as its label says, and serves no other.`)
  }
  return asked ?? own?.purpose ?? 'kms'
}

/** What an object may be used for, as the KMS API names it. */
function possibleUsages(
  { usages }: AdoptableObject,
  spec: KeySpec,
  purpose: Purpose,
  isOwn: boolean,
): readonly KeyUsage[] {
  const has = (usage: string): boolean => usages.includes(usage)
  // a key that unwraps keys must not decrypt what was wrapped to it; the KMS and XKS doors open AES ciphertexts of their own form alone
  const unwraps = has('unwrap') && !(spec === 'SYMMETRIC_DEFAULT' && (purpose === 'kms' || purpose === 'xks'))
  const decrypts = has('decrypt') && !unwraps
  switch (specs[spec].family) {
    case 'aes':
      // what a key of an external key store can do, GetKeyMetadata tells: one that only encrypts is a key too
      if (purpose === 'xks') return ['ENCRYPT_DECRYPT']
      return (has('encrypt') && !unwraps) || decrypts || (isOwn && has('derive')) ? ['ENCRYPT_DECRYPT'] : []
    case 'rsa':
      return [...(has('sign') ? (['SIGN_VERIFY'] as const) : []), ...(decrypts ? (['ENCRYPT_DECRYPT'] as const) : [])]
    case 'ec':
      return [
        ...(has('sign') ? (['SIGN_VERIFY'] as const) : []),
        ...(has('derive') ? (['KEY_AGREEMENT'] as const) : []),
      ]
    case 'ed25519':
    case 'ml-dsa':
      return has('sign') ? ['SIGN_VERIFY'] : []
    case 'hmac':
      return has('sign') ? ['GENERATE_VERIFY_MAC'] : []
    case 'ml-kem':
      return has('decapsulate') ? ['ENCAPSULATE_DECAPSULATE'] : []
  }
}

const usagesOfPurpose: Readonly<Partial<Record<Purpose, readonly KeyUsage[]>>> = {
  tls: ['SIGN_VERIFY'],
  xks: ['ENCRYPT_DECRYPT'],
}

/** @throws GatewayError `ValidationFailed` when the object permits too little, or too much to guess. */
export function chooseUsage(
  object: AdoptableObject,
  spec: KeySpec,
  purpose: Purpose,
  asked: KeyUsage | undefined,
  isOwn: boolean,
): KeyUsage {
  const offered = Object.keys(specs[spec].usages) as KeyUsage[]
  const allowed = usagesOfPurpose[purpose] ?? offered
  if (purpose === 'xks' && spec !== 'SYMMETRIC_DEFAULT') throw invalid('A key of purpose xks is an AES-256 key.')
  const possible = possibleUsages(object, spec, purpose, isOwn).filter(
    (usage) => offered.includes(usage) && allowed.includes(usage),
  )
  const permits = object.usages.length === 0 ? 'nothing' : object.usages.join(', ')
  const oracle = object.usages.includes('unwrap') ? ' A key that unwraps keys must not decrypt anything else.' : ''
  if (asked !== undefined && !possible.includes(asked)) {
    throw invalid(
      `The object permits ${permits}: that is not enough for a ${spec} key with usage ${asked} and purpose ${purpose}.${oracle}`,
    )
  }
  const [only] = possible
  if (only === undefined)
    throw invalid(`The object permits ${permits}: no ${spec} key of purpose ${purpose} can do with that.${oracle}`)
  if (asked === undefined && possible.length > 1) {
    throw invalid(`The object can serve for ${possible.join(' or ')}, and a key has one usage: name it with --usage.`)
  }
  return asked ?? only
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}
