/**
 * Templates of every object the worker makes, by intent: sensitive, private, only the usages that the intent needs. A token object is
 * never extractable, whatever the intent says. Labels carry the purpose, and the worker reads it back before it uses an object.
 */
import { purposes } from '../frames.ts'
import type { Construction, GenerateIntent, KeySpec, KeyUsage, Purpose } from '../port.ts'
import { CKA, CKK, CKO } from './cryptoki.ts'
import { ed25519Params, type KeyShape } from './key-shapes.ts'
import type { Template } from './pack.ts'

/** `foreign`: not ours by its label, an adopted object; it serves the purpose it was registered for. `unknown`: looks ours, isn't. */
export type LabelPurpose = Purpose | 'foreign' | 'unknown'

/** `hsmgate:<key id>:<n>` for purpose kms, `hsmgate-<purpose>:<key id>:<n>` for the others. */
export function labelOf(purpose: Purpose, keyId: string, number: number): string {
  return `hsmgate${purpose === 'kms' ? '' : `-${purpose}`}:${keyId}:${number}`
}

export function purposeOfLabel(label: string): LabelPurpose {
  if (!label.startsWith('hsmgate')) return 'foreign'
  const prefix = label.slice('hsmgate'.length, label.indexOf(':'))
  if (prefix === '') return label.startsWith('hsmgate:') ? 'kms' : 'unknown'
  const purpose = purposes.find((name) => name !== 'kms' && prefix === `-${name}`)
  return purpose ?? 'unknown'
}

/** AES keys seal through derived working keys where derivation is proven; an XKS key is used itself, since its caller fixes the format. */
export function constructionOf(
  intent: Pick<GenerateIntent, 'spec' | 'usage' | 'purpose'>,
  proven: Construction,
): Construction {
  if (intent.spec !== 'SYMMETRIC_DEFAULT' || intent.usage !== 'ENCRYPT_DECRYPT') return 'none'
  return intent.purpose === 'xks' ? 'direct' : proven
}

function privateUsages(spec: KeySpec, usage: KeyUsage, construction: Construction): readonly number[] {
  switch (usage) {
    case 'ENCRYPT_DECRYPT':
      if (spec !== 'SYMMETRIC_DEFAULT') return [CKA.decrypt]
      return construction === 'derived' ? [CKA.derive] : [CKA.encrypt, CKA.decrypt]
    case 'SIGN_VERIFY':
      return [CKA.sign]
    case 'GENERATE_VERIFY_MAC':
      return [CKA.sign, CKA.verify]
    case 'KEY_AGREEMENT':
      return [CKA.derive]
    case 'WRAP_UNWRAP':
      // raw RSA decryption is what OAEP-SHA-256 unwrapping stands on where the module has none (no door decrypts with such a key)
      return spec === 'SYMMETRIC_DEFAULT' ? [CKA.wrap, CKA.unwrap] : [CKA.unwrap, CKA.decrypt]
    case 'ENCAPSULATE_DECAPSULATE':
      return [CKA.decapsulate]
  }
}

const allUsages = [CKA.encrypt, CKA.decrypt, CKA.sign, CKA.verify, CKA.wrap, CKA.unwrap, CKA.derive]

function usageAttributes(granted: readonly number[], possible: readonly number[]): Template {
  return possible.map((usage) => [usage, granted.includes(usage)] as const)
}

/** What any key object of this intent has in common, however it comes into being. */
function keyAttributes(intent: GenerateIntent, shape: KeyShape): Template {
  const { objectClass, keyType } = shape
  const isToken = intent.residence === 'token'
  return [
    [CKA.class, objectClass === 'secret' ? CKO.secretKey : CKO.privateKey],
    [CKA.keyType, keyType],
    [CKA.token, isToken],
    [CKA.private, true],
    [CKA.sensitive, true],
    [CKA.extractable, !isToken && intent.exportable === true],
    [CKA.id, Buffer.from(intent.objectId)],
    [CKA.label, Buffer.from(labelOf(intent.purpose, intent.keyId, intent.number))],
  ]
}

const publicOnly = [CKA.encrypt, CKA.verify, CKA.wrap]
const privateOnly = [CKA.decrypt, CKA.sign, CKA.unwrap, CKA.derive]

export function secretKeyTemplate(intent: GenerateIntent, shape: KeyShape, construction: Construction): Template {
  const granted = privateUsages(intent.spec, intent.usage, construction)
  return [
    ...keyAttributes(intent, shape),
    [CKA.valueLen, shape.valueBytes as number],
    ...usageAttributes(granted, allUsages),
  ]
}

/** `granted` replaces what the intent's usage needs; the probe alone asks for that. */
export function privateKeyTemplate(
  intent: GenerateIntent,
  shape: KeyShape,
  granted: readonly number[] = privateUsages(intent.spec, intent.usage, 'none'),
): Template {
  // modules before PKCS#11 3.2 refuse what they don't know
  const possible = intent.usage === 'ENCAPSULATE_DECAPSULATE' ? [...privateOnly, CKA.decapsulate] : privateOnly
  return [...keyAttributes(intent, shape), ...usageAttributes(granted, possible)]
}

/** The public half: a session object, read out and destroyed. */
export function publicKeyTemplate(intent: GenerateIntent, shape: KeyShape): Template {
  const verifies = intent.usage === 'SIGN_VERIFY'
  return [
    [CKA.class, CKO.publicKey],
    [CKA.keyType, shape.keyType],
    [CKA.token, false],
    [CKA.private, false],
    [CKA.id, Buffer.from(intent.objectId)],
    [CKA.label, Buffer.from(labelOf(intent.purpose, intent.keyId, intent.number))],
    ...usageAttributes(verifies ? [CKA.verify] : [], publicOnly),
    ...(intent.usage === 'ENCAPSULATE_DECAPSULATE' ? [[CKA.encapsulate, true] as const] : []),
    ...materialAttributes(shape),
  ]
}

const exponent65537 = Buffer.from([0x01, 0x00, 0x01])

function materialAttributes(shape: KeyShape): Template {
  if (shape.keyType === CKK.rsa) {
    return [
      [CKA.modulusBits, shape.modulusBits as number],
      [CKA.publicExponent, exponent65537],
    ]
  }
  if (shape.parameters !== undefined) return [[CKA.parameterSet, shape.parameters.number]]
  return [[CKA.ecParams, shape.curve?.params ?? ed25519Params]]
}

/** C_UnwrapKey: the same, less what the wrapped bytes themselves say. */
export function unwrapTemplate(intent: GenerateIntent, shape: KeyShape, construction: Construction): Template {
  if (shape.objectClass === 'private') return privateKeyTemplate(intent, shape)
  return secretKeyTemplate(intent, shape, construction).filter(([type]) => type !== CKA.valueLen)
}

/** Session secrets that the worker makes for itself; only the named usages, never seen outside the module. */
export function sessionSecretTemplate(keyType: number, valueBytes: number, usages: readonly number[]): Template {
  return [
    [CKA.class, CKO.secretKey],
    [CKA.keyType, keyType],
    [CKA.token, false],
    [CKA.private, true],
    [CKA.sensitive, true],
    [CKA.extractable, false],
    [CKA.valueLen, valueBytes],
    ...usageAttributes(usages, allUsages),
  ]
}

/** Result of an ECDH agreement or of a decapsulation: read once and destroyed within the same job. */
export function agreedSecretTemplate(valueBytes: number): Template {
  return [
    [CKA.class, CKO.secretKey],
    [CKA.keyType, CKK.genericSecret],
    [CKA.token, false],
    [CKA.private, true],
    [CKA.sensitive, false],
    [CKA.extractable, true],
    [CKA.valueLen, valueBytes],
  ]
}
