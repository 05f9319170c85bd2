import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { GenerateIntent, KeySpec, KeyUsage, Purpose } from '../../../../src/hsm/port.ts'
import { CKA } from '../../../../src/hsm/worker/cryptoki.ts'
import { keyShapes, specOf } from '../../../../src/hsm/worker/key-shapes.ts'
import type { Template } from '../../../../src/hsm/worker/pack.ts'
import {
  constructionOf,
  labelOf,
  privateKeyTemplate,
  publicKeyTemplate,
  purposeOfLabel,
  secretKeyTemplate,
  unwrapTemplate,
} from '../../../../src/hsm/worker/templates.ts'

const usageNumbers = [CKA.encrypt, CKA.decrypt, CKA.sign, CKA.verify, CKA.wrap, CKA.unwrap, CKA.derive]
const attributeIn = (template: Template, type: number) => template.find(([each]) => each === type)?.[1]
const granted = (template: Template) => usageNumbers.filter((type) => attributeIn(template, type) === true)

function intentOf(spec: KeySpec, usage: KeyUsage, more: Partial<GenerateIntent> = {}): GenerateIntent {
  return {
    group: 'g',
    spec,
    usage,
    purpose: 'kms',
    objectId: Buffer.alloc(16, 7),
    keyId: 'key',
    number: 3,
    residence: 'token',
    ...more,
  }
}

const intents = Object.entries(keyShapes).flatMap(([spec, shape]) =>
  shape.usages.map((usage) => [spec as KeySpec, usage, shape] as const),
)

describe('templates', () => {
  it.each(intents)('of %s for %s never let a token object out', (spec, usage, shape) => {
    for (const exportable of [true, false]) {
      const intent = intentOf(spec, usage, { exportable })
      for (const template of [
        shape.objectClass === 'secret'
          ? secretKeyTemplate(intent, shape, 'derived')
          : privateKeyTemplate(intent, shape),
        unwrapTemplate(intent, shape, 'direct'),
      ]) {
        expect(attributeIn(template, CKA.token)).toBe(true)
        expect(attributeIn(template, CKA.private)).toBe(true)
        expect(attributeIn(template, CKA.sensitive)).toBe(true)
        expect(attributeIn(template, CKA.extractable)).toBe(false)
        expect(attributeIn(template, CKA.id)).toEqual(Buffer.alloc(16, 7))
        expect(attributeIn(template, CKA.label)).toEqual(Buffer.from('hsmgate:key:3'))
      }
    }
  })

  it('grant what the usage needs and nothing else', () => {
    const aes = keyShapes.SYMMETRIC_DEFAULT!
    const seals = intentOf('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    expect(granted(secretKeyTemplate(seals, aes, 'derived'))).toEqual([CKA.derive])
    expect(granted(secretKeyTemplate(seals, aes, 'direct'))).toEqual([CKA.encrypt, CKA.decrypt])
    const wraps = intentOf('SYMMETRIC_DEFAULT', 'WRAP_UNWRAP')
    expect(granted(secretKeyTemplate(wraps, aes, 'none'))).toEqual([CKA.wrap, CKA.unwrap])
    const macs = intentOf('HMAC_256', 'GENERATE_VERIFY_MAC')
    expect(granted(secretKeyTemplate(macs, keyShapes.HMAC_256!, 'none'))).toEqual([CKA.sign, CKA.verify])
    const rsa = keyShapes.RSA_2048!
    expect(granted(privateKeyTemplate(intentOf('RSA_2048', 'SIGN_VERIFY'), rsa))).toEqual([CKA.sign])
    expect(granted(privateKeyTemplate(intentOf('RSA_2048', 'ENCRYPT_DECRYPT'), rsa))).toEqual([CKA.decrypt])
    expect(granted(privateKeyTemplate(intentOf('RSA_2048', 'WRAP_UNWRAP'), rsa))).toEqual([CKA.decrypt, CKA.unwrap])
    const ec = keyShapes.ECC_NIST_P256!
    expect(granted(privateKeyTemplate(intentOf('ECC_NIST_P256', 'SIGN_VERIFY'), ec))).toEqual([CKA.sign])
    expect(granted(privateKeyTemplate(intentOf('ECC_NIST_P256', 'KEY_AGREEMENT'), ec))).toEqual([CKA.derive])
  })

  it('state every usage, granted or not, since modules have defaults of their own', () => {
    const template = secretKeyTemplate(intentOf('HMAC_256', 'GENERATE_VERIFY_MAC'), keyShapes.HMAC_256!, 'none')
    expect(usageNumbers.every((type) => typeof attributeIn(template, type) === 'boolean')).toBe(true)
  })

  it('keep the size of an RSA key out of the private half (a useless key on CloudHSM)', () => {
    const intent = intentOf('RSA_3072', 'SIGN_VERIFY')
    expect(attributeIn(privateKeyTemplate(intent, keyShapes.RSA_3072!), CKA.modulusBits)).toBeUndefined()
    expect(attributeIn(publicKeyTemplate(intent, keyShapes.RSA_3072!), CKA.modulusBits)).toBe(3072)
  })

  it('keep the public half a session object', () => {
    const intent = intentOf('ECC_NIST_P256', 'SIGN_VERIFY')
    expect(attributeIn(publicKeyTemplate(intent, keyShapes.ECC_NIST_P256!), CKA.token)).toBe(false)
  })

  it('let exportable session objects out, and only these', () => {
    const shape = keyShapes.HMAC_256!
    const session = intentOf('HMAC_256', 'GENERATE_VERIFY_MAC', { residence: 'session' })
    expect(attributeIn(secretKeyTemplate(session, shape, 'none'), CKA.extractable)).toBe(false)
    const exportable = secretKeyTemplate({ ...session, exportable: true }, shape, 'none')
    expect(attributeIn(exportable, CKA.extractable)).toBe(true)
    expect(attributeIn(exportable, CKA.token)).toBe(false)
  })
})

describe('labels', () => {
  const purposes: readonly Purpose[] = ['kms', 'tls', 'xks', 'system']

  it('carry the purpose, whatever the key is called', () => {
    fc.assert(
      fc.property(fc.constantFrom(...purposes), fc.string(), fc.nat(), (purpose, keyId, number) => {
        expect(purposeOfLabel(labelOf(purpose, keyId, number))).toBe(purpose)
      }),
    )
  })

  it('of others are foreign, and those that only look like ours are nobody’s', () => {
    for (const label of ['', 'legacy', 'HSMGATE:x:1', ' hsmgate:x:1']) expect(purposeOfLabel(label)).toBe('foreign')
    for (const label of ['hsmgate', 'hsmgate-', 'hsmgate-kms:x:1', 'hsmgate-root:x:1', 'hsmgate_tls:x', 'hsmgates:x']) {
      expect(purposeOfLabel(label)).toBe('unknown')
    }
  })
})

describe('the construction', () => {
  it('is what is proven for sealing keys, the key itself for XKS, none for the rest', () => {
    expect(constructionOf(intentOf('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT'), 'derived')).toBe('derived')
    expect(constructionOf(intentOf('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT'), 'direct')).toBe('direct')
    const xks = intentOf('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', { purpose: 'xks' })
    expect(constructionOf(xks, 'derived')).toBe('direct')
    expect(constructionOf(intentOf('SYMMETRIC_DEFAULT', 'WRAP_UNWRAP'), 'derived')).toBe('none')
    expect(constructionOf(intentOf('HMAC_256', 'GENERATE_VERIFY_MAC'), 'derived')).toBe('none')
  })
})

describe('the spec of an object', () => {
  it('is found again from the attributes that its template gives it', () => {
    for (const [spec, shape] of Object.entries(keyShapes)) {
      const { keyType, modulusBits, curve, valueBytes, parameters } = shape
      const facts = { keyType, modulusBits, ecParams: curve?.params, valueBytes, parameterSet: parameters?.number }
      expect(specOf(facts), spec).toBe(spec)
    }
  })

  it('is unknown for sizes and curves that no API offers', () => {
    expect(specOf({ keyType: 0x00, modulusBits: 1024 })).toBeUndefined()
    expect(specOf({ keyType: 0x03, ecParams: Buffer.from('06052b8104000b', 'hex') })).toBeUndefined()
    expect(specOf({ keyType: 0x1f, valueBytes: 16 })).toBeUndefined()
    expect(specOf({ keyType: 0x10, valueBytes: 20 })).toBeUndefined()
    expect(specOf({ keyType: 0x40, ecParams: Buffer.from('06032b6571', 'hex') })).toBeUndefined()
    expect(specOf({ keyType: 0x13 })).toBeUndefined()
  })
})
