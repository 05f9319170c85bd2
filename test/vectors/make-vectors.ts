/**
 * Writes the vector files beside it: signatures, ciphertexts, codes and peer keys with one named flaw each, built from the encodings of
 * the standards (SEC 1 and FIPS 186-5, RFC 8017, RFC 8032, RFC 2104, RFC 5480). Run once, by hand: RSA keys are new each time, so the files are
 * committed. The private keys are for tests alone.
 */
import {
  constants,
  createECDH,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateEncrypt,
  publicEncrypt,
  sign,
} from 'node:crypto'
import { writeFileSync } from 'node:fs'
import path from 'node:path'

interface Vector {
  /** What is wrong with it; absent where nothing is. */
  readonly flaw?: string
  readonly note?: string
  readonly [member: string]: string | undefined
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const toInt = (bytes: Uint8Array): bigint => BigInt(`0x${hex(bytes) || '0'}`)
const toBytes = (value: bigint, length: number): Buffer =>
  Buffer.from(
    value
      .toString(16)
      .padStart(length * 2, '0')
      .slice(-length * 2),
    'hex',
  )
const message = Buffer.from('123400', 'hex')
const messageHex = hex(message)

const tlv = (tag: number, content: Uint8Array): Buffer => {
  const { length } = content
  const head = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.from([tag, ...head]), content])
}
const unsigned = (value: bigint): Buffer => {
  const text = value.toString(16)
  const bytes = Buffer.from(text.length % 2 === 0 ? text : `0${text}`, 'hex')
  return (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes
}
const integer = (value: bigint): Buffer => tlv(0x02, unsigned(value))
const der = (r: bigint, s: bigint): Buffer => tlv(0x30, Buffer.concat([integer(r), integer(s)]))
const oid = (text: string): Buffer => Buffer.from(text, 'hex')

function write(name: string, source: string, groups: readonly object[]): void {
  const file = path.join(import.meta.dirname, `${name}.json`)
  writeFileSync(file, `${JSON.stringify({ source, groups }, null, 2)}\n`)
}

const pkcs8 = (key: KeyObject): string => hex(key.export({ format: 'der', type: 'pkcs8' }) as Buffer)

const orders: Readonly<Record<string, bigint>> = {
  'P-256': 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  'P-384': 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  'P-521': BigInt(`0x1${'f'.repeat(64)}fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409`),
  secp256k1: 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n,
}

/** RFC 6979, A.2.5: the P-256 key and the signature of "sample" with SHA-256. */
const rfc6979 = {
  d: 'c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721',
  r: 0xefd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716n,
  s: 0xf7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8n,
}

function ecKey(curve: string): KeyObject {
  if (curve !== 'P-256') return generateKeyPairSync('ec', { namedCurve: curve }).privateKey
  const ecdh = createECDH('prime256v1')
  ecdh.setPrivateKey(rfc6979.d, 'hex')
  const point = ecdh.getPublicKey()
  const url = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url')
  const jwk = {
    kty: 'EC',
    crv: 'P-256',
    d: url(Buffer.from(rfc6979.d, 'hex')),
    x: url(point.subarray(1, 33)),
    y: url(point.subarray(33)),
  }
  return createPrivateKey({ key: jwk, format: 'jwk' })
}

function ecdsaGroup(spec: string, curve: string, hash: string, otherHash: string): object {
  const key = ecKey(curve)
  const n = orders[curve] as bigint
  const width = Math.ceil(n.toString(16).length / 2)
  const raw = sign(hash, message, { key, dsaEncoding: 'ieee-p1363' })
  const [r, s] = [toInt(raw.subarray(0, width)), toInt(raw.subarray(width))]
  const good = der(r, s)
  const padded = (value: bigint) => tlv(0x02, Buffer.concat([Buffer.from([0]), unsigned(value)]))
  const body = Buffer.concat([integer(r), integer(s)])
  const vectors: [string | undefined, Uint8Array][] = [
    [undefined, good],
    [undefined, der(r, n - s)],
    ['r is 0', der(0n, s)],
    ['s is 0', der(r, 0n)],
    ['r and s are 0', der(0n, 0n)],
    ['r and s are 1', der(1n, 1n)],
    ['r is n', der(n, s)],
    ['s is n', der(r, n)],
    ['r + n', der(r + n, s)],
    ['s + n', der(r, s + n)],
    ['n - r', der(n - r, s)],
    ['r is n - 1 and s is n - 1', der(n - 1n, n - 1n)],
    ['r + 2^(8 · width)', der(r + (1n << BigInt(8 * width)), s)],
    [
      'r is negative',
      tlv(
        0x30,
        Buffer.concat([
          tlv(0x02, Buffer.concat([Buffer.from([0xff]), toBytes(-r & ((1n << BigInt(8 * width)) - 1n), width)])),
          integer(s),
        ]),
      ),
    ],
    ['r and s change places', der(s, r)],
    ['r has a superfluous zero', tlv(0x30, Buffer.concat([padded(r), integer(s)]))],
    ['s has a superfluous zero', tlv(0x30, Buffer.concat([integer(r), padded(s)]))],
    [
      'the length is BER long form',
      Buffer.concat([Buffer.from([0x30, 0x82, body.length >> 8, body.length & 255]), body]),
    ],
    ['the length is indefinite', Buffer.concat([Buffer.from([0x30, 0x80]), body, Buffer.from([0, 0])])],
    ['a byte follows', Buffer.concat([good, Buffer.from([0])])],
    ['a NULL follows inside', tlv(0x30, Buffer.concat([body, Buffer.from([5, 0])]))],
    ['s is missing', tlv(0x30, integer(r))],
    ['nothing is inside', Buffer.from([0x30, 0])],
    ['it is a SET', tlv(0x31, body)],
    ['r is an OCTET STRING', tlv(0x30, Buffer.concat([tlv(0x04, unsigned(r)), integer(s)]))],
    ['r is empty', tlv(0x30, Buffer.concat([Buffer.from([2, 0]), integer(s)]))],
    ['the last byte is missing', good.subarray(0, -1)],
    ['it is r and s without DER', raw],
    ['it is for another message', sign(hash, Buffer.from('other'), key)],
    ['it is for another hash', sign(otherHash, message, key)],
    ['it is of another key', sign(hash, message, generateKeyPairSync('ec', { namedCurve: curve }).privateKey)],
    ['it is a single byte', Buffer.from([0])],
  ]
  const sample: Vector[] =
    curve === 'P-256'
      ? [{ note: 'RFC 6979, A.2.5', message: hex(Buffer.from('sample')), signature: hex(der(rfc6979.r, rfc6979.s)) }]
      : []
  return {
    spec,
    algorithm: `ECDSA_SHA_${hash.slice(3)}`,
    privateKey: pkcs8(key),
    vectors: [
      ...sample,
      ...vectors.map(
        ([flaw, signature]): Vector => ({
          ...(flaw === undefined ? {} : { flaw }),
          message: messageHex,
          signature: hex(signature),
        }),
      ),
    ],
  }
}

const digestInfo: Readonly<Record<string, string>> = {
  sha1: '3021300906052b0e03021a05000414',
  sha256: '3031300d060960864801650304020105000420',
  sha384: '3041300d060960864801650304020205000430',
  sha512: '3051300d060960864801650304020305000440',
}

function numbersOf(key: KeyObject) {
  const { n = '' } = key.export({ format: 'jwk' }) as { n?: string }
  const modulus = toInt(Buffer.from(n, 'base64url'))
  return { modulus, width: Buffer.from(n, 'base64url').length }
}

const rawPrivate = (key: KeyObject, block: Uint8Array) =>
  privateEncrypt({ key, padding: constants.RSA_NO_PADDING }, block)
const rawPublic = (key: KeyObject, block: Uint8Array) =>
  publicEncrypt({ key: createPublicKey(key), padding: constants.RSA_NO_PADDING }, block)

function pkcs1Group(key: KeyObject, spec: string, hash: string): object {
  const { modulus, width } = numbersOf(key)
  const digest = createHash(hash).update(message).digest()
  const info = Buffer.from(digestInfo[hash] as string, 'hex')
  const block = (content: Uint8Array, type = 1, fill = 0xff) =>
    Buffer.concat([Buffer.from([0, type]), Buffer.alloc(width - 3 - content.length, fill), Buffer.from([0]), content])
  const signed = (content: Uint8Array) => rawPrivate(key, content)
  const good = signed(block(Buffer.concat([info, digest])))
  const noNull = Buffer.from(info)
  const withoutParameters = tlv(0x30, Buffer.concat([tlv(0x30, noNull.subarray(4, 4 + 11)), tlv(0x04, digest)]))
  const content = Buffer.concat([info, digest])
  const short = Buffer.concat([Buffer.from([0, 1]), Buffer.alloc(8, 0xff), Buffer.from([0]), content])
  const garbage = Buffer.concat([short, Buffer.alloc(width - short.length, 0x5a)])
  const longForm = Buffer.concat([Buffer.from([0x30, 0x81]), content.subarray(1)])
  const vectors: [string | undefined, Uint8Array][] = [
    [undefined, good],
    ['the block type is 2', signed(block(content, 2))],
    ['the padding is not all ones', signed(block(content, 1, 0xfe))],
    ['garbage follows a short padding', signed(garbage)],
    ['there is no padding at all', signed(Buffer.concat([Buffer.alloc(width - content.length), content]))],
    ['the AlgorithmIdentifier has no NULL', signed(block(withoutParameters))],
    ['the DigestInfo is BER long form', signed(block(longForm))],
    ['there is no DigestInfo', signed(block(digest))],
    ['the digest is cut short', signed(block(content.subarray(0, -1)))],
    [
      'the DigestInfo names another hash',
      signed(
        block(
          Buffer.concat([Buffer.from(digestInfo[hash === 'sha256' ? 'sha384' : 'sha256'] as string, 'hex'), digest]),
        ),
      ),
    ],
    ['it is for another hash', sign(hash === 'sha256' ? 'sha384' : 'sha256', message, key)],
    ['it is for SHA-1', sign('sha1', message, key)],
    ['it is for another message', sign(hash, Buffer.from('other'), key)],
    ['it is PSS', sign(hash, message, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: digest.length })],
    ['the modulus is added', toBytes(toInt(good) + modulus, width + 1)],
    ['a zero leads', Buffer.concat([Buffer.from([0]), good])],
    ['a zero follows', Buffer.concat([good, Buffer.from([0])])],
    ['the last byte is missing', good.subarray(0, -1)],
    ['it is 0', Buffer.alloc(width)],
    ['it is 1', toBytes(1n, width)],
    ['it is n - 1', toBytes(modulus - 1n, width)],
    ['it is n', toBytes(modulus, width)],
  ]
  return {
    spec,
    algorithm: `RSASSA_PKCS1_V1_5_SHA_${hash.slice(3)}`,
    privateKey: pkcs8(key),
    vectors: vectors.map(
      ([flaw, signature]): Vector => ({
        ...(flaw === undefined ? {} : { flaw }),
        message: messageHex,
        signature: hex(signature),
      }),
    ),
  }
}

function mgf1(hash: string, seed: Uint8Array, length: number): Buffer {
  const blocks: Buffer[] = []
  for (let counter = 0; Buffer.concat(blocks).length < length; counter++) {
    blocks.push(
      createHash(hash)
        .update(seed)
        .update(toBytes(BigInt(counter), 4))
        .digest(),
    )
  }
  return Buffer.concat(blocks).subarray(0, length)
}

const xor = (a: Uint8Array, b: Uint8Array): Buffer => Buffer.from(a.map((byte, i) => byte ^ (b[i] as number)))

interface PssFlaws {
  readonly saltBytes?: number
  readonly maskHash?: string
  readonly trailer?: number
  readonly separator?: number
  readonly padding?: number
  readonly topBit?: boolean
  readonly digest?: Uint8Array
}

/** RFC 8017, 9.1.1. */
function pssBlock(hash: string, modulusBits: number, flaws: PssFlaws): Buffer {
  const digest = flaws.digest ?? createHash(hash).update(message).digest()
  const hashBytes = createHash(hash).digest().length
  const { saltBytes = hashBytes, maskHash = hash, trailer = 0xbc, separator = 1, padding = 0 } = flaws
  const salt = Buffer.alloc(saltBytes, 0x42)
  const width = modulusBits / 8
  const h = createHash(hash).update(Buffer.alloc(8)).update(digest).update(salt).digest()
  const data = Buffer.concat([Buffer.alloc(width - saltBytes - hashBytes - 2, padding), Buffer.from([separator]), salt])
  const masked = xor(data, mgf1(maskHash, h, data.length))
  masked[0] = flaws.topBit === true ? (masked[0] as number) | 0x80 : (masked[0] as number) & 0x7f
  return Buffer.concat([masked, h, Buffer.from([trailer])])
}

function pssGroup(key: KeyObject, spec: string, hash: string): object {
  const { modulus, width } = numbersOf(key)
  const signed = (flaws: PssFlaws) => rawPrivate(key, pssBlock(hash, width * 8, flaws))
  const hashBytes = createHash(hash).digest().length
  const good = signed({})
  /** A block whose top bit is set is only a signature where it is below the modulus. */
  const topBit = pssBlock(hash, width * 8, { topBit: true })
  const vectors: [string | undefined, Uint8Array][] = [
    [undefined, good],
    ['the salt is empty', signed({ saltBytes: 0 })],
    ['the salt has 20 bytes', signed({ saltBytes: 20 })],
    ['the salt is one byte short', signed({ saltBytes: hashBytes - 1 })],
    ['the salt is one byte long', signed({ saltBytes: hashBytes + 1 })],
    ['the salt is as long as it can be', signed({ saltBytes: width - hashBytes - 2 })],
    ['the mask is of SHA-1', signed({ maskHash: 'sha1' })],
    ['the trailer is 0xcc', signed({ trailer: 0xcc })],
    ['the separator is 2', signed({ separator: 2 })],
    ['the padding is not zero', signed({ padding: 1 })],
    ['the digest is of another message', signed({ digest: createHash(hash).update('other').digest() })],
    [
      'it is for another hash',
      sign(hash === 'sha256' ? 'sha384' : 'sha256', message, {
        key,
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
      }),
    ],
    ['it is PKCS #1 v1.5', sign(hash, message, key)],
    ['the modulus is added', toBytes(toInt(good) + modulus, width + 1)],
    ['a zero leads', Buffer.concat([Buffer.from([0]), good])],
    ['the last byte is missing', good.subarray(0, -1)],
    ['it is 0', Buffer.alloc(width)],
    ['it is n - 1', toBytes(modulus - 1n, width)],
    ...(toInt(topBit) < modulus ? ([['the top bit is set', rawPrivate(key, topBit)]] as [string, Uint8Array][]) : []),
  ]
  return {
    spec,
    algorithm: `RSASSA_PSS_SHA_${hash.slice(3)}`,
    privateKey: pkcs8(key),
    vectors: vectors.map(
      ([flaw, signature]): Vector => ({
        ...(flaw === undefined ? {} : { flaw }),
        message: messageHex,
        signature: hex(signature),
      }),
    ),
  }
}

/** RFC 8032, 7.1, tests 1 to 3 (secret key, message, signature). */
const rfc8032 = [
  [
    '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
    '',
    'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  ],
  [
    '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
    '72',
    '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
  ],
  [
    'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
    'af82',
    '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a',
  ],
] as const

function ed25519Group([secret, text, signature]: (typeof rfc8032)[number]): object {
  const key = createPrivateKey({
    key: Buffer.from(`302e020100300506032b657004220420${secret}`, 'hex'),
    format: 'der',
    type: 'pkcs8',
  })
  const good = Buffer.from(signature, 'hex')
  const order = (1n << 252n) + 27742317777372353535851937790883648493n
  const s = toInt(Buffer.from(good.subarray(32)).reverse())
  const withS = (value: bigint) => Buffer.concat([good.subarray(0, 32), toBytes(value, 32).reverse()])
  const vectors: [string | undefined, Uint8Array][] = [
    [undefined, good],
    ['S + L', withS(s + order)],
    ['S is 0', withS(0n)],
    ['S is L', withS(order)],
    ['the top bit of S is set', withS(s | (1n << 255n))],
    ['R is the identity and S is 0', Buffer.concat([Buffer.from([1]), Buffer.alloc(63)])],
    [
      'R has its sign turned',
      Buffer.concat([good.subarray(0, 31), Buffer.from([(good[31] as number) ^ 0x80]), good.subarray(32)]),
    ],
    ['it is for another message', sign(null, Buffer.from('other'), key)],
    ['the last byte is missing', good.subarray(0, -1)],
    ['a byte follows', Buffer.concat([good, Buffer.from([0])])],
    ['it is all zero', Buffer.alloc(64)],
  ]
  return {
    spec: 'ECC_NIST_EDWARDS25519',
    algorithm: 'ED25519_SHA_512',
    privateKey: pkcs8(key),
    vectors: vectors.map(
      ([flaw, bytes]): Vector => ({
        ...(flaw === undefined ? { note: 'RFC 8032, 7.1' } : { flaw }),
        message: text,
        signature: hex(bytes),
      }),
    ),
  }
}

function macGroup(bits: 224 | 256 | 384 | 512): object {
  const key = Buffer.from(Array.from({ length: bits / 8 }, (_, i) => i + 1))
  const compute = (hash: string, data: Uint8Array, with_ = key) => createHmac(hash, with_).update(data).digest()
  const good = compute(`sha${bits}`, message)
  const flipped = Buffer.from(good)
  flipped[0] = (flipped[0] as number) ^ 1
  const vectors: [string | undefined, Uint8Array][] = [
    [undefined, good],
    ['it is cut to 16 bytes', good.subarray(0, 16)],
    ['the last byte is missing', good.subarray(0, -1)],
    ['the first byte is missing', good.subarray(1)],
    ['a zero follows', Buffer.concat([good, Buffer.from([0])])],
    ['it comes twice', Buffer.concat([good, good])],
    ['one bit is turned', flipped],
    ['it is all zero', Buffer.alloc(good.length)],
    ['it is for another message', compute(`sha${bits}`, Buffer.from('other'))],
    ['it is of another key', compute(`sha${bits}`, message, Buffer.alloc(bits / 8, 9))],
    ['it is of another hash', compute(bits === 256 ? 'sha512' : 'sha256', message)],
    ['it is the plain hash', createHash(`sha${bits}`).update(message).digest()],
    ['it is a single byte', good.subarray(0, 1)],
  ]
  return {
    spec: `HMAC_${bits}`,
    algorithm: `HMAC_SHA_${bits}`,
    secretKey: hex(key),
    vectors: vectors.map(
      ([flaw, mac]): Vector => ({ ...(flaw === undefined ? {} : { flaw }), message: messageHex, mac: hex(mac) }),
    ),
  }
}

interface OaepFlaws {
  readonly label?: string
  readonly maskHash?: string
  readonly first?: number
  readonly separator?: number
  readonly padding?: number
  readonly plaintext?: Uint8Array
}

/** RFC 8017, 7.1.1. */
function oaepBlock(hash: string, width: number, flaws: OaepFlaws = {}): Buffer {
  const { label = '', maskHash = hash, first = 0, separator = 1, padding = 0, plaintext = message } = flaws
  const labelHash = createHash(hash).update(label).digest()
  const seed = Buffer.alloc(labelHash.length, 0x17)
  const filler = Buffer.alloc(width - plaintext.length - 2 * labelHash.length - 2, padding)
  const data = Buffer.concat([labelHash, filler, Buffer.from([separator]), plaintext])
  const maskedData = xor(data, mgf1(maskHash, seed, data.length))
  const maskedSeed = xor(seed, mgf1(maskHash, maskedData, seed.length))
  return Buffer.concat([Buffer.from([first]), maskedSeed, maskedData])
}

function oaepGroup(key: KeyObject, spec: string, hash: 'sha1' | 'sha256'): object {
  const { modulus, width } = numbersOf(key)
  const sealed = (flaws: OaepFlaws = {}) => rawPublic(key, oaepBlock(hash, width, flaws))
  const good = sealed()
  const most = width - 2 * createHash(hash).digest().length - 2
  const type2 = Buffer.concat([
    Buffer.from([0, 2]),
    Buffer.alloc(width - 3 - message.length, 7),
    Buffer.from([0]),
    message,
  ])
  const vectors: Vector[] = [
    { ciphertext: hex(good), plaintext: messageHex },
    {
      ciphertext: hex(sealed({ plaintext: Buffer.alloc(most, 3) })),
      plaintext: hex(Buffer.alloc(most, 3)),
      note: 'as long as can be',
    },
    { ciphertext: hex(sealed({ plaintext: Buffer.alloc(1) })), plaintext: '00', note: 'a zero byte' },
    {
      ciphertext: hex(sealed({ plaintext: Buffer.alloc(9, 1) })),
      plaintext: hex(Buffer.alloc(9, 1)),
      note: 'looks like separators',
    },
    ...(
      [
        ['the label is not empty', sealed({ label: 'label' })],
        ['the first byte is 1', sealed({ first: 1 })],
        ['there is no separator', sealed({ separator: 0, plaintext: Buffer.alloc(8) })],
        ['the separator is 2', sealed({ separator: 2 })],
        ['the padding is not zero', sealed({ padding: 2 })],
        ['the mask is of another hash', sealed({ maskHash: hash === 'sha1' ? 'sha256' : 'sha1' })],
        ['everything is of another hash', rawPublic(key, oaepBlock(hash === 'sha1' ? 'sha256' : 'sha1', width))],
        ['it is PKCS #1 v1.5', rawPublic(key, type2)],
        ['nothing is padded', rawPublic(key, toBytes(toInt(message), width))],
        ['it is 0', Buffer.alloc(width)],
        ['it is 1', toBytes(1n, width)],
        ['it is n - 1', toBytes(modulus - 1n, width)],
        ['it is n', toBytes(modulus, width)],
        ['it is all ones', Buffer.alloc(width, 0xff)],
        ['a zero leads', Buffer.concat([Buffer.from([0]), good])],
        ['the last byte is missing', good.subarray(0, -1)],
        ['one bit is turned', Buffer.concat([good.subarray(0, -1), Buffer.from([(good.at(-1) as number) ^ 1])])],
        ...(toInt(good) + modulus < 1n << BigInt(8 * width)
          ? [['the modulus is added', toBytes(toInt(good) + modulus, width)] as const]
          : []),
      ] as const
    ).map(([flaw, ciphertext]): Vector => ({ flaw, ciphertext: hex(ciphertext) })),
  ]
  return { spec, algorithm: `RSAES_OAEP_SHA_${hash === 'sha1' ? '1' : '256'}`, privateKey: pkcs8(key), vectors }
}

const idEcPublicKey = oid('06072a8648ce3d0201')
const curveOids: Readonly<Record<string, string>> = {
  'P-256': '06082a8648ce3d030107',
  'P-384': '06052b81040022',
  'P-521': '06052b81040023',
  secp256k1: '06052b8104000a',
}
/** RFC 5480, section 2. */
const spki = (curve: string, point: Uint8Array, unusedBits = 0): Buffer =>
  tlv(
    0x30,
    Buffer.concat([
      tlv(0x30, Buffer.concat([idEcPublicKey, oid(curveOids[curve] as string)])),
      tlv(0x03, Buffer.concat([Buffer.from([unusedBits]), point])),
    ]),
  )

const curveNames: Readonly<Record<string, string>> = {
  'P-256': 'prime256v1',
  'P-384': 'secp384r1',
  'P-521': 'secp521r1',
  secp256k1: 'secp256k1',
}

function agreementGroup(spec: string, curve: string): object {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: curve })
  const { d = '' } = privateKey.export({ format: 'jwk' }) as { d?: string }
  const own = createECDH(curveNames[curve] as string)
  own.setPrivateKey(Buffer.from(d, 'base64url'))
  const width = Math.ceil((orders[curve] as bigint).toString(16).length / 2)
  const peerOf = () => {
    const peer = createECDH(curveNames[curve] as string)
    peer.generateKeys()
    const secret = own.computeSecret(peer.getPublicKey())
    return { point: peer.getPublicKey(), secret }
  }
  const first = peerOf()
  let short = peerOf()
  while (short.secret[0] !== 0 || (curve === 'P-521' && short.secret[1] !== 0)) short = peerOf()
  const { point } = first
  const x = point.subarray(1, 1 + width)
  const changed = (at: number) => {
    const copy = Buffer.from(point)
    copy[at] = (copy[at] as number) ^ 1
    return copy
  }
  const otherCurve = curve === 'P-256' ? 'P-384' : 'P-256'
  const other = createECDH(curveNames[otherCurve] as string)
  other.generateKeys()
  const koblitz = createECDH('secp256k1')
  koblitz.generateKeys()
  const good = spki(curve, point)
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({
    format: 'der',
    type: 'spki',
  }) as Buffer
  const explicit = generateKeyPairSync('ec', { namedCurve: curve, paramEncoding: 'explicit' }).publicKey.export({
    format: 'der',
    type: 'spki',
  }) as Buffer
  const vectors: Vector[] = [
    { publicKey: hex(good), secret: hex(first.secret) },
    { publicKey: hex(spki(curve, short.point)), secret: hex(short.secret), note: 'the secret has leading zeros' },
    {
      publicKey: hex(spki(curve, Buffer.concat([Buffer.from([2 + ((point.at(-1) as number) & 1)]), x]))),
      secret: hex(first.secret),
      note: 'the point is compressed',
    },
    ...(
      [
        ['y is changed', spki(curve, changed(point.length - 1))],
        ['x is changed', spki(curve, changed(width))],
        ['x and y are 0', spki(curve, Buffer.concat([Buffer.from([4]), Buffer.alloc(2 * width)]))],
        ['the coordinates are all ones', spki(curve, Buffer.concat([Buffer.from([4]), Buffer.alloc(2 * width, 0xff)]))],
        ['it is the point at infinity', spki(curve, Buffer.from([0]))],
        ['the point is empty', spki(curve, Buffer.alloc(0))],
        ['the point is cut short', spki(curve, point.subarray(0, -1))],
        ['a byte follows the point', spki(curve, Buffer.concat([point, Buffer.from([0])]))],
        ['the form of the point is unknown', spki(curve, Buffer.concat([Buffer.from([5]), point.subarray(1)]))],
        ['it is a point of another curve under the name of this one', spki(curve, other.getPublicKey())],
        ['it is a key of another curve', spki(otherCurve, other.getPublicKey())],
        ['it is a key of secp256k1', spki('secp256k1', koblitz.getPublicKey())],
        ['the curve is given by its parameters', explicit],
        ['it is the point without SubjectPublicKeyInfo', point],
        ['a byte follows', Buffer.concat([good, Buffer.from([0])])],
        ['the last byte is missing', good.subarray(0, -1)],
        ['it is an RSA key', rsa],
        ['it is a private key', Buffer.from(pkcs8(generateKeyPairSync('ec', { namedCurve: curve }).privateKey), 'hex')],
        [
          'there is no curve',
          tlv(0x30, Buffer.concat([tlv(0x30, idEcPublicKey), tlv(0x03, Buffer.concat([Buffer.from([0]), point]))])),
        ],
        ['it is x alone', spki(curve, Buffer.concat([Buffer.from([4]), x]))],
      ] as const
    ).map(([flaw, bytes]): Vector => ({ flaw, publicKey: hex(bytes) })),
  ]
  return { spec, algorithm: 'ECDH', privateKey: pkcs8(privateKey), vectors }
}

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
const rsaEncrypt = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
write('ecdsa', 'SEC 1 v2, 4.1; FIPS 186-5; X.690; RFC 6979', [
  ecdsaGroup('ECC_NIST_P256', 'P-256', 'sha256', 'sha384'),
  ecdsaGroup('ECC_NIST_P384', 'P-384', 'sha384', 'sha256'),
  ecdsaGroup('ECC_NIST_P521', 'P-521', 'sha512', 'sha256'),
  ecdsaGroup('ECC_SECG_P256K1', 'secp256k1', 'sha256', 'sha512'),
])
write(
  'rsa-pkcs1',
  'RFC 8017, 8.2 and 9.2',
  ['sha256', 'sha384', 'sha512'].map((hash) => pkcs1Group(rsa, 'RSA_2048', hash)),
)
write(
  'rsa-pss',
  'RFC 8017, 8.1 and 9.1',
  ['sha256', 'sha384', 'sha512'].map((hash) => pssGroup(rsa, 'RSA_2048', hash)),
)
write('ed25519', 'RFC 8032, 5.1', rfc8032.map(ed25519Group))
write('hmac', 'RFC 2104; FIPS 198-1', ([224, 256, 384, 512] as const).map(macGroup))
write(
  'rsa-oaep',
  'RFC 8017, 7.1',
  (['sha1', 'sha256'] as const).map((hash) => oaepGroup(rsaEncrypt, 'RSA_2048', hash)),
)
write('ecdh', 'SEC 1 v2, 3.2.2 and 3.3.1; RFC 5480', [
  agreementGroup('ECC_NIST_P256', 'P-256'),
  agreementGroup('ECC_NIST_P384', 'P-384'),
  agreementGroup('ECC_NIST_P521', 'P-521'),
])
