import { createHash, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { type OffloadPolicy, offloadPolicies } from '../../../../src/authenticate/tls-bindings.ts'
import { inputKinds, signatureAlgorithms } from '../../../../src/transport/offload/frames.ts'
import { findPolicy } from '../../../../src/transport/offload/policies.ts'
import { certificateVerify } from '../../../support/hks-client.ts'
import { createSignedDocuments, type SignedDocuments } from '../../../support/signed-documents.ts'

let documents: SignedDocuments
beforeAll(async () => {
  documents = await createSignedDocuments()
})

const narrow = offloadPolicies.filter((policy) => policy !== 'any')
const { ecdsa, rsaPkcs1 } = signatureAlgorithms

/** Which of all policies but `any` permit a message. */
function permitting(input: Buffer, inputKind: number = inputKinds.message, algorithm: number = ecdsa): OffloadPolicy[] {
  return narrow.filter((policy) => findPolicy([policy], { algorithm, inputKind, input }) !== undefined)
}

const curves = { x25519: [29, 32], x448: [30, 56], p256: [23, 65], p384: [24, 97], p521: [25, 133] } as const

/** client_random, server_random, ServerECDHParams. */
function serverKeyExchange(curve: number, pointBytes: number, lead = 4): Buffer {
  const point = Buffer.alloc(pointBytes, 0x77)
  if (curve < 29) point[0] = lead
  return Buffer.concat([randomBytes(64), Buffer.from([3, 0, curve, pointBytes]), point])
}

describe('the policy tls13-server', () => {
  it.each([32, 48])('permits the CertificateVerify of a server over a transcript hash of %i bytes', (bytes) => {
    const message = certificateVerify('server', randomBytes(bytes))
    expect(message.length).toBe(98 + bytes)
    expect(permitting(message)).toEqual(['tls13-server'])
  })

  it.each([0, 20, 31, 33, 47, 49, 64])('refuses a transcript hash of %i bytes', (bytes) => {
    expect(permitting(certificateVerify('server', randomBytes(bytes)))).toEqual([])
  })

  it('refuses PKCS#1 v1.5, which TLS 1.3 does not sign with', () => {
    const message = certificateVerify('server', randomBytes(32))
    expect(permitting(message, inputKinds.message, rsaPkcs1)).toEqual([])
  })

  it('refuses the digest of a CertificateVerify', () => {
    const message = certificateVerify('server', randomBytes(32))
    expect(permitting(createHash('sha256').update(message).digest(), inputKinds.digest)).toEqual([])
    expect(permitting(message, inputKinds.digest)).toEqual([])
  })

  it('refuses a message that differs in any byte of its context', () => {
    const message = certificateVerify('server', randomBytes(32))
    for (let at = 0; at < 98; at++) {
      const other = Buffer.from(message)
      other[at] = other[at]! ^ 1
      expect(permitting(other)).toEqual([])
    }
  })
})

describe('the policy tls13-client', () => {
  it.each([32, 48])('permits the CertificateVerify of a client alone, with %i bytes of hash', (bytes) => {
    expect(permitting(certificateVerify('client', randomBytes(bytes)))).toEqual(['tls13-client'])
  })
})

describe('the policy tls12-server-ecdhe', () => {
  it.each(Object.entries(curves))('permits the parameters of %s', (_name, [curve, bytes]) => {
    const message = serverKeyExchange(curve, bytes)
    expect(message.length).toBe(68 + bytes)
    expect(permitting(message)).toEqual(['tls12-server-ecdhe'])
    expect(permitting(message, inputKinds.message, rsaPkcs1)).toEqual(['tls12-server-ecdhe'])
  })

  it('refuses another curve type, another curve, another length', () => {
    const message = serverKeyExchange(23, 65)
    for (const [at, value] of [
      [64, 1],
      [64, 2],
      [65, 1],
      [66, 24],
      [66, 22],
      [66, 255],
      [67, 64],
      [67, 66],
    ] as const) {
      const other = Buffer.from(message)
      other[at] = value
      expect(permitting(other)).toEqual([])
    }
  })

  it('refuses a compressed point and the point at infinity', () => {
    for (const lead of [0, 2, 3, 6]) expect(permitting(serverKeyExchange(23, 65, lead))).toEqual([])
  })

  it('refuses bytes before and after it', () => {
    const message = serverKeyExchange(29, 32)
    expect(permitting(Buffer.concat([message, Buffer.alloc(1)]))).toEqual([])
    expect(permitting(Buffer.concat([Buffer.alloc(1), message]))).toEqual([])
    expect(permitting(message.subarray(0, -1))).toEqual([])
  })

  it('refuses explicit Diffie-Hellman parameters', () => {
    const dh = Buffer.concat([randomBytes(64), Buffer.from([0, 128]), randomBytes(128), Buffer.from([0, 1, 2])])
    expect(permitting(dh)).toEqual([])
  })
})

describe('the policy x509', () => {
  it('permits a certificate, a certificate request and a revocation list that OpenSSL made', () => {
    expect(permitting(documents.certificate)).toEqual(['x509'])
    expect(permitting(documents.request)).toEqual(['x509'])
    expect(permitting(documents.plainRequest)).toEqual(['x509'])
    expect(permitting(documents.revocationList)).toEqual(['x509'])
  })

  it('refuses bytes left over, cut off, and lengths that are not minimal', () => {
    for (const whole of [documents.certificate, documents.request, documents.revocationList]) {
      expect(permitting(Buffer.concat([whole, Buffer.alloc(1)]))).toEqual([])
      expect(permitting(whole.subarray(0, -1))).toEqual([])
      const longer = Buffer.concat([Buffer.from([0x30, whole[1]! + 1, 0]), whole.subarray(2)])
      expect(permitting(longer)).toEqual([])
    }
  })

  it('refuses a request without the public key', () => {
    const empty = Buffer.from('300a0201003000a000', 'hex')
    expect(permitting(empty)).toEqual([])
  })
})

describe('the policy cms', () => {
  it('permits signed attributes that OpenSSL made', () => {
    expect(permitting(documents.signedAttributes)).toEqual(['cms'])
  })

  it('refuses attributes without a message digest, without a content type, or with two', () => {
    const oid = (last: number) => Buffer.from(`06092a864886f70d0109${last.toString(16).padStart(2, '0')}`, 'hex')
    const attribute = (name: Buffer, value: Buffer) => {
      const set = Buffer.concat([Buffer.from([0x31, value.length]), value])
      return Buffer.concat([Buffer.from([0x30, name.length + set.length]), name, set])
    }
    const set = (...parts: Buffer[]) => {
      const body = Buffer.concat(parts)
      return Buffer.concat([Buffer.from([0x31, body.length]), body])
    }
    const type = attribute(oid(3), Buffer.from('06092a864886f70d010701', 'hex'))
    const digest = attribute(oid(4), Buffer.concat([Buffer.from([4, 32]), randomBytes(32)]))
    const short = attribute(oid(4), Buffer.from([4, 4, 1, 2, 3, 4]))
    expect(permitting(set(type, digest))).toEqual(['cms'])
    for (const wrong of [set(type), set(digest), set(type, type, digest), set(type, short), set()])
      expect(permitting(wrong)).toEqual([])
  })
})

describe('the policies together', () => {
  it('permit a JWT to nobody but `any`', () => {
    expect(permitting(documents.jwt)).toEqual([])
    const input = { algorithm: ecdsa, inputKind: inputKinds.message, input: documents.jwt }
    expect(findPolicy(['tls13-server', 'any'], input)).toBe('any')
  })

  it('permit a digest to nobody but `any`', () => {
    const input = { algorithm: ecdsa, inputKind: inputKinds.digest, input: randomBytes(32) }
    expect(findPolicy(narrow, input)).toBeUndefined()
    expect(findPolicy(['any'], input)).toBe('any')
  })

  it('permit nothing when there are none', () => {
    const input = {
      algorithm: ecdsa,
      inputKind: inputKinds.message,
      input: certificateVerify('server', randomBytes(32)),
    }
    expect(findPolicy([], input)).toBeUndefined()
  })

  it('answer for any bytes, and for documents that were damaged', () => {
    const whole = [documents.certificate, documents.request, documents.revocationList, documents.signedAttributes]
    const damaged = fc
      .tuple(fc.constantFrom(...whole), fc.nat(), fc.integer({ min: 0, max: 255 }), fc.nat(40))
      .map(([bytes, at, value, cut]) => {
        const copy = Buffer.from(bytes.subarray(0, bytes.length - cut))
        copy[at % copy.length] = value
        return copy
      })
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }).map(Buffer.from), damaged), (input) => {
        for (const policy of permitting(input)) expect(narrow).toContain(policy)
      }),
      { numRuns: 2000 },
    )
  })
})
