/** What operators and web servers hand in about TLS keys: references, certificate requests, names. A value, or the one error that is promised. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { makeCertificateRequest, parseCertificateRequest } from '../../src/certificates.ts'
import { GatewayError } from '../../src/error.ts'
import { decodeReference, decodeReferencePem, encodeReference, KeyReferenceError } from '../../src/tls-reference.ts'
import { fuzzBounds, patience } from './bounds.ts'

interface References {
  readonly valid: readonly { readonly der: string }[]
  readonly files: { readonly valid: readonly { readonly file: string }[] }
}

const references: References = JSON.parse(
  readFileSync(path.join(import.meta.dirname, '../vectors/key-reference.json'), 'utf8'),
)
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const key = {
  spec: 'ECC_NIST_P256',
  publicKey: publicKey.export({ format: 'der', type: 'spki' }),
  sign: async (tbs: Uint8Array) => sign('sha256', tbs, { key: privateKey, dsaEncoding: 'ieee-p1363' }),
} as const

/** Bytes of one of the seeds, some of them changed, the rest perhaps cut off. */
const damaged = (seeds: readonly Buffer[]) =>
  fc
    .record({
      seed: fc.constantFrom(...seeds),
      edits: fc.array(fc.record({ at: fc.nat(8191), byte: fc.nat(255) }), { maxLength: 6 }),
      cut: fc.option(fc.nat(8191)),
    })
    .map(({ seed, edits, cut }) => {
      const bytes = Buffer.from(cut === null ? seed : seed.subarray(0, cut))
      for (const { at, byte } of edits) if (bytes.length > 0) bytes[at % bytes.length] = byte
      return bytes
    })

const invalid = expect.objectContaining({ code: 'ValidationFailed' })

describe('a damaged key reference', () => {
  it('is the very bytes that its content encodes to, or a KeyReferenceError', patience, () => {
    const seeds = references.valid.map(({ der }) => Buffer.from(der, 'hex'))
    fc.assert(
      fc.property(fc.oneof(damaged(seeds), fc.uint8Array({ maxLength: 200 }).map(Buffer.from)), (bytes) => {
        try {
          expect(encodeReference(decodeReference(bytes)).equals(bytes)).toBe(true)
        } catch (failure) {
          expect(failure).toBeInstanceOf(KeyReferenceError)
        }
      }),
      fuzzBounds(4000),
    )
  })

  it('in a file is found or a KeyReferenceError', patience, () => {
    const seeds = references.files.valid.map(({ file }) => Buffer.from(file))
    fc.assert(
      fc.property(damaged(seeds), (bytes) => {
        try {
          decodeReferencePem(bytes.toString('latin1'))
        } catch (failure) {
          expect(failure).toBeInstanceOf(KeyReferenceError)
        }
      }),
      fuzzBounds(4000),
    )
  })
})

describe('a certificate request', () => {
  it('that was damaged is the one that was signed, or refused', patience, async () => {
    const pem = await makeCertificateRequest(key, { subject: 'CN=relay,O=Elsewhere', san: ['relay.example'] })
    const der = Buffer.from(pem.split('\n').slice(1, -2).join(''), 'base64')
    const encode = (bytes: Buffer) =>
      `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
    await fc.assert(
      fc.asyncProperty(damaged([der]), async (bytes) => {
        try {
          const parsed = await parseCertificateRequest(encode(bytes))
          expect(parsed.publicKey.equals(key.publicKey)).toBe(true)
        } catch (failure) {
          expect(failure).toEqual(invalid)
        }
      }),
      fuzzBounds(400),
    )
  })

  it('is made for names that can be read back, or refused', patience, async () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.stringMatching(/^(?:CN|O|OU|C|DC|1\.2\.3)=[ -~]{0,20}(?:[,+](?:CN|O)=[ -~]{0,10}){0,2}$/),
    )
    const names = fc.record({
      subject: fc.option(text, { nil: undefined }),
      san: fc.array(fc.oneof(fc.string({ maxLength: 30 }), fc.domain(), fc.ipV4(), fc.ipV6()), { maxLength: 3 }),
    })
    await fc.assert(
      fc.asyncProperty(names, async ({ subject, san }) => {
        try {
          const request = await makeCertificateRequest(key, { ...(subject === undefined ? {} : { subject }), san })
          const parsed = await parseCertificateRequest(request)
          expect(parsed.publicKey.equals(key.publicKey)).toBe(true)
        } catch (failure) {
          if (!(failure instanceof GatewayError)) throw failure
          expect(failure).toEqual(invalid)
        }
      }),
      fuzzBounds(400),
    )
  })
})
