/**
 * Quirk profiles: how modules of one vendor deviate from PKCS#11, as data. `generic` is the specification; the others change what
 * vendor documents and public bug reports show. The probe, not the profile, decides what a token can do.
 */
import type { Action } from './action.ts'

export interface Profile {
  readonly name: string
  /** Codes beside 0x40, 0x41 and 0x42 that a failed tag or padding check gives. */
  readonly badCiphertext: readonly number[]
  /** Codes of C_UnwrapKey for what opens, but is no private key of the kind in the template. */
  readonly badWrappedKey: readonly number[]
  /** Codes of C_DeriveKey for a peer point off the curve. */
  readonly badPoint: readonly number[]
  /** Codes of a key generation that is worth one more try, after a look-up by CKA_ID has shown that nothing was made. */
  readonly keygenRetry: readonly number[]
  /** Codes that mean "too busy". */
  readonly throttled: readonly number[]
  /** The same, in C_GetAttributeValue alone. */
  readonly throttledReads: readonly number[]
  /** Codes of C_GetAttributeValue on an object that is being destroyed. */
  readonly vanished: readonly number[]
  /** Vendor codes (0x80000000 and above). */
  readonly vendorCodes: Readonly<Record<number, Action>>
  /** Sessions of a worker when the configuration does not say. */
  readonly sessions: number
  /** Derived working keys that a worker keeps for Decrypt; they count against the token's object memory. */
  readonly workingKeys: number
  /** Working keys that a worker keeps for Encrypt, one per backing key. */
  readonly sealingKeys: number
  /** Which IV rule of AES-GCM is tried first. */
  readonly gcmIv: 'caller' | 'module'
}

const generic: Profile = {
  name: 'generic',
  badCiphertext: [],
  badWrappedKey: [0x110],
  badPoint: [0x20, 0x21, 0x71],
  keygenRetry: [],
  throttled: [],
  throttledReads: [],
  vanished: [0x60, 0x82],
  vendorCodes: {},
  sessions: 8,
  workingKeys: 64,
  sealingKeys: 64,
  gcmIv: 'caller',
}

export const profiles: Readonly<Record<string, Profile>> = {
  generic,
  softhsm: {
    ...generic,
    name: 'softhsm',
    // 2.6.1 answers a bad GCM tag, a bad KWP check and a failed OAEP decoding with CKR_GENERAL_ERROR; 2.7.0 with 0x40
    badCiphertext: [0x05],
    badWrappedKey: [0x06, ...generic.badWrappedKey],
    badPoint: [0x05, ...generic.badPoint],
    // object store races (SoftHSMv2 issue 573)
    keygenRetry: [0x05, 0x06, 0xd1],
    vanished: [0x05, 0x13, ...generic.vanished],
    sessions: 2,
    workingKeys: 512,
    sealingKeys: 512,
  },
  cloudhsm: {
    ...generic,
    name: 'cloudhsm',
    throttled: [0x06],
    throttledReads: [0x30],
    sessions: 32,
    gcmIv: 'module',
  },
  luna: { ...generic, name: 'luna', sessions: 30, gcmIv: 'caller' },
  nshield: { ...generic, name: 'nshield', badCiphertext: [0x06], sessions: 16 },
  utimaco: { ...generic, name: 'utimaco', sessions: 8 },
  yubihsm2: { ...generic, name: 'yubihsm2', sessions: 4, workingKeys: 8, sealingKeys: 8 },
}

/** The profile by name; `generic` for an unknown one. */
export function findProfile(name: string): Profile {
  return Object.hasOwn(profiles, name) ? (profiles[name] as Profile) : generic
}
