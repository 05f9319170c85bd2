import { describe, expect, it } from 'vitest'
import { errorCodes } from '../../../../src/error.ts'
import { findProfile, profiles } from '../../../../src/hsm/worker/profiles.ts'
import { judge, rvEntry, rvName, rvTable } from '../../../../src/hsm/worker/rv.ts'

/** Every CK_RV of PKCS#11 3.2 (pkcs11t.h), with what must happen after it: a second hand, so that a slip in the table shows. */
const expected = `
0x00 OK -                               0x01 CANCEL S                      0x02 HOST_MEMORY T
0x03 SLOT_ID_INVALID I                  0x05 GENERAL_ERROR S               0x06 FUNCTION_FAILED S
0x07 ARGUMENTS_BAD B                    0x08 NO_EVENT -                    0x09 NEED_TO_CREATE_THREADS O
0x0A CANT_LOCK O                        0x10 ATTRIBUTE_READ_ONLY B         0x11 ATTRIBUTE_SENSITIVE A
0x12 ATTRIBUTE_TYPE_INVALID B           0x13 ATTRIBUTE_VALUE_INVALID A     0x1B ACTION_PROHIBITED A
0x20 DATA_INVALID A                     0x21 DATA_LEN_RANGE A              0x30 DEVICE_ERROR S
0x31 DEVICE_MEMORY T                    0x32 DEVICE_REMOVED D              0x40 ENCRYPTED_DATA_INVALID A
0x41 ENCRYPTED_DATA_LEN_RANGE A         0x42 AEAD_DECRYPT_FAILED A         0x50 FUNCTION_CANCELED S
0x51 FUNCTION_NOT_PARALLEL -            0x54 FUNCTION_NOT_SUPPORTED A      0x60 KEY_HANDLE_INVALID H
0x62 KEY_SIZE_RANGE A                   0x63 KEY_TYPE_INCONSISTENT A       0x64 KEY_NOT_NEEDED B
0x65 KEY_CHANGED B                      0x66 KEY_NEEDED B                  0x67 KEY_INDIGESTIBLE B
0x68 KEY_FUNCTION_NOT_PERMITTED A       0x69 KEY_NOT_WRAPPABLE A           0x6A KEY_UNEXTRACTABLE A
0x70 MECHANISM_INVALID B                0x71 MECHANISM_PARAM_INVALID B     0x82 OBJECT_HANDLE_INVALID H
0x90 OPERATION_ACTIVE S                 0x91 OPERATION_NOT_INITIALIZED S   0xA0 PIN_INCORRECT O
0xA1 PIN_INVALID O                      0xA2 PIN_LEN_RANGE O               0xA3 PIN_EXPIRED O
0xA4 PIN_LOCKED O                       0xB0 SESSION_CLOSED S              0xB1 SESSION_COUNT T
0xB3 SESSION_HANDLE_INVALID S           0xB4 SESSION_PARALLEL_NOT_SUPPORTED B  0xB5 SESSION_READ_ONLY S
0xB6 SESSION_EXISTS O                   0xB7 SESSION_READ_ONLY_EXISTS O    0xB8 SESSION_READ_WRITE_SO_EXISTS O
0xC0 SIGNATURE_INVALID A                0xC1 SIGNATURE_LEN_RANGE A         0xD0 TEMPLATE_INCOMPLETE B
0xD1 TEMPLATE_INCONSISTENT B            0xE0 TOKEN_NOT_PRESENT D           0xE1 TOKEN_NOT_RECOGNIZED D
0xE2 TOKEN_WRITE_PROTECTED O            0xF0 UNWRAPPING_KEY_HANDLE_INVALID H  0xF1 UNWRAPPING_KEY_SIZE_RANGE B
0xF2 UNWRAPPING_KEY_TYPE_INCONSISTENT B 0x100 USER_ALREADY_LOGGED_IN -     0x101 USER_NOT_LOGGED_IN L
0x102 USER_PIN_NOT_INITIALIZED O        0x103 USER_TYPE_INVALID O          0x104 USER_ANOTHER_ALREADY_LOGGED_IN O
0x105 USER_TOO_MANY_TYPES O             0x110 WRAPPED_KEY_INVALID A        0x112 WRAPPED_KEY_LEN_RANGE A
0x113 WRAPPING_KEY_HANDLE_INVALID H     0x114 WRAPPING_KEY_SIZE_RANGE B    0x115 WRAPPING_KEY_TYPE_INCONSISTENT B
0x120 RANDOM_SEED_NOT_SUPPORTED -       0x121 RANDOM_NO_RNG D              0x130 DOMAIN_PARAMS_INVALID A
0x140 CURVE_NOT_SUPPORTED A             0x150 BUFFER_TOO_SMALL B           0x160 SAVED_STATE_INVALID B
0x170 INFORMATION_SENSITIVE B           0x180 STATE_UNSAVEABLE B           0x190 CRYPTOKI_NOT_INITIALIZED I
0x191 CRYPTOKI_ALREADY_INITIALIZED -    0x1A0 MUTEX_BAD I                  0x1A1 MUTEX_NOT_LOCKED I
0x1B0 NEW_PIN_MODE O                    0x1B1 NEXT_OTP O                   0x1B5 EXCEEDED_MAX_ITERATIONS A
0x1B6 FIPS_SELF_TEST_FAILED O           0x1B7 LIBRARY_LOAD_FAILED I        0x1B8 PIN_TOO_WEAK A
0x1B9 PUBLIC_KEY_INVALID A              0x200 FUNCTION_REJECTED A          0x201 TOKEN_RESOURCE_EXCEEDED T
0x202 OPERATION_CANCEL_FAILED S         0x203 KEY_EXHAUSTED A              0x204 PENDING B
0x205 SESSION_ASYNC_NOT_SUPPORTED B     0x206 SEED_RANDOM_REQUIRED D       0x207 OPERATION_NOT_VALIDATED O
0x208 TOKEN_NOT_INITIALIZED O           0x209 PARAMETER_SET_NOT_SUPPORTED A`

const cells = [...expected.matchAll(/(0x[0-9A-F]+) (\w+) (\S)/g)].map(
  ([, rv, name, action]) => [Number(rv), `CKR_${name}`, action] as const,
)
const generic = findProfile('generic')
const softhsm = findProfile('softhsm')

describe('the table of return values', () => {
  it.each(cells)('0x%i is %s and leads to %s', (rv, name, action) => {
    expect(rvEntry(rv)).toMatchObject({ name, action })
    expect(rvName(rv)).toBe(name)
    expect(judge(rv, { call: 'C_Sign', operation: 'sign', profile: generic })).toMatchObject({ action })
  })

  it('holds these codes and no others, each with an error code that doors know', () => {
    expect([...rvTable.keys()].sort((a, b) => a - b)).toEqual(cells.map(([rv]) => rv))
    for (const { code } of rvTable.values()) expect(errorCodes).toHaveProperty(code)
  })

  it('lets an operator-only code never be retried, and a caller-only code never speak of the token', () => {
    for (const [, { action, code }] of rvTable) {
      if (action === 'O' || action === 'D' || action === 'L' || action === 'I') expect(code).toBe('KeyUnavailable')
      if (action === 'A') expect(errorCodes[code].fault).toBe('caller')
      if (action === 'T') expect(code).toBe('HsmBusy')
      if (action === 'S' || action === 'B') expect(['HsmFailure', 'Unsupported']).toContain(code)
    }
  })

  it('says which codes have closed the session', () => {
    const lost = [...rvTable].filter(([, { session }]) => session === 'lost').map(([rv]) => rv)
    expect(lost).toEqual([0x03, 0x32, 0xb0, 0xb3, 0xe0, 0xe1, 0x190, 0x1b6, 0x1b7])
  })

  it.each([
    [0x1c0, 0x1b5],
    [0x1c1, 0x1b6],
    [0x1c2, 0x1b7],
    [0x1c3, 0x1b8],
    [0x1c4, 0x1b9],
  ])('reads 0x%i as 0x%i, as p11-kit and SoftHSM number it', (alias, rv) => {
    expect(rvEntry(alias)).toBe(rvEntry(rv))
  })

  it.each([0x80000000, 0x8000001a, 0xffffffff, 2 ** 63])('names vendor code %i by its number', (rv) => {
    expect(rvName(rv)).toBe(`CKR_VENDOR_DEFINED(0x${rv.toString(16)})`)
    expect(rvEntry(rv)).toMatchObject({ action: 'S', code: 'HsmFailure', session: 'suspect' })
  })

  it('treats a number that nobody defined as a failure of the module', () => {
    expect(rvName(0x777)).toBe('CKR_UNKNOWN(0x777)')
    expect(rvEntry(0x777)).toMatchObject({ action: 'S', code: 'HsmFailure' })
  })
})

describe('judging', () => {
  it('makes one answer of everything that is wrong with a ciphertext', () => {
    for (const call of ['C_Decrypt', 'C_UnwrapKey']) {
      const operation = call === 'C_Decrypt' ? 'decrypt' : 'unwrap'
      for (const rv of [0x20, 0x21, 0x40, 0x41, 0x42, 0x110, 0x112]) {
        expect(judge(rv, { call, operation, profile: generic })).toMatchObject({
          action: 'A',
          code: 'CiphertextInvalid',
        })
      }
      expect(judge(0x05, { call, operation, profile: softhsm })).toMatchObject({ code: 'CiphertextInvalid' })
      expect(judge(0x05, { call, operation, profile: generic })).toMatchObject({ action: 'S', code: 'HsmFailure' })
      expect(judge(0x06, { call, operation, profile: findProfile('nshield') })).toMatchObject({ action: 'A' })
    }
  })

  it('takes a GENERAL_ERROR of SoftHSM for trouble where no ciphertext was opened', () => {
    expect(judge(0x05, { call: 'C_Sign', operation: 'sign', profile: softhsm })).toMatchObject({ action: 'S' })
  })

  it('hears CloudHSM say that it is busy', () => {
    const profile = findProfile('cloudhsm')
    expect(judge(0x06, { call: 'C_Sign', operation: 'sign', profile })).toMatchObject({ action: 'T', code: 'HsmBusy' })
    const read = { call: 'C_GetAttributeValue', operation: 'attributes', profile } as const
    expect(judge(0x30, read)).toMatchObject({ action: 'T' })
    expect(judge(0x30, { ...read, call: 'C_Sign' })).toMatchObject({ action: 'S' })
  })

  it('looks for an object again that SoftHSM was just destroying', () => {
    for (const rv of [0x05, 0x13, 0x82]) {
      const context = { call: 'C_GetAttributeValue', operation: 'enumerate', profile: softhsm } as const
      expect(judge(rv, context)).toMatchObject({ action: 'H' })
    }
  })

  it('blames the peer for a point that the module refuses, in key agreement alone', () => {
    const context = { call: 'C_DeriveKey', profile: softhsm } as const
    expect(judge(0x05, { ...context, operation: 'derive' })).toMatchObject({ action: 'A', code: 'ValidationFailed' })
    expect(judge(0x05, { ...context, operation: 'encrypt' })).toMatchObject({ action: 'S' })
  })
})

describe('profiles', () => {
  it('are complete for every vendor, and generic for the rest', () => {
    const names = ['generic', 'softhsm', 'cloudhsm', 'luna', 'nshield', 'utimaco', 'yubihsm2']
    expect(Object.keys(profiles)).toEqual(names)
    for (const name of names) expect(findProfile(name).name).toBe(name)
    expect(findProfile('something-else').name).toBe('generic')
    expect(findProfile('constructor').name).toBe('generic')
  })
})
