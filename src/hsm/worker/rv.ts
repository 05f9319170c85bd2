/**
 * Every CK_RV of PKCS#11 3.2 as data: its name, what happens next (the action letter that also travels to the gateway), the error
 * code the caller's door renders, and what it means for the session. Judged by number, never by text. Pure.
 */
import type { ErrorCode } from '../../error.ts'
import type { OperationName } from '../frames.ts'
import type { Action } from './action.ts'
import type { Profile } from './profiles.ts'

/** `keep`: usable. `suspect`: cancel or reopen before the next use. `lost`: the module has closed it. */
export type SessionEffect = 'keep' | 'suspect' | 'lost'

export interface RvEntry {
  readonly name: string
  readonly action: Action
  readonly code: ErrorCode
  readonly session: SessionEffect
}

type Row = readonly [rv: number, name: string, action: Action, code: ErrorCode, session?: SessionEffect]

const rows: readonly Row[] = [
  [0x00, 'OK', '-', 'HsmFailure'],
  [0x01, 'CANCEL', 'S', 'HsmFailure', 'suspect'],
  [0x02, 'HOST_MEMORY', 'T', 'HsmBusy', 'suspect'],
  [0x03, 'SLOT_ID_INVALID', 'I', 'KeyUnavailable', 'lost'],
  [0x05, 'GENERAL_ERROR', 'S', 'HsmFailure', 'suspect'],
  [0x06, 'FUNCTION_FAILED', 'S', 'HsmFailure', 'suspect'],
  [0x07, 'ARGUMENTS_BAD', 'B', 'HsmFailure', 'suspect'],
  [0x08, 'NO_EVENT', '-', 'HsmFailure'],
  [0x09, 'NEED_TO_CREATE_THREADS', 'O', 'KeyUnavailable', 'suspect'],
  [0x0a, 'CANT_LOCK', 'O', 'KeyUnavailable', 'suspect'],
  [0x10, 'ATTRIBUTE_READ_ONLY', 'B', 'HsmFailure'],
  [0x11, 'ATTRIBUTE_SENSITIVE', 'A', 'Unsupported'],
  [0x12, 'ATTRIBUTE_TYPE_INVALID', 'B', 'HsmFailure'],
  [0x13, 'ATTRIBUTE_VALUE_INVALID', 'A', 'Unsupported'],
  [0x1b, 'ACTION_PROHIBITED', 'A', 'Unsupported'],
  [0x20, 'DATA_INVALID', 'A', 'ValidationFailed'],
  [0x21, 'DATA_LEN_RANGE', 'A', 'ValidationFailed'],
  [0x30, 'DEVICE_ERROR', 'S', 'HsmFailure', 'suspect'],
  [0x31, 'DEVICE_MEMORY', 'T', 'HsmBusy', 'suspect'],
  [0x32, 'DEVICE_REMOVED', 'D', 'KeyUnavailable', 'lost'],
  [0x40, 'ENCRYPTED_DATA_INVALID', 'A', 'CiphertextInvalid'],
  [0x41, 'ENCRYPTED_DATA_LEN_RANGE', 'A', 'CiphertextInvalid'],
  [0x42, 'AEAD_DECRYPT_FAILED', 'A', 'CiphertextInvalid'],
  [0x50, 'FUNCTION_CANCELED', 'S', 'HsmFailure', 'suspect'],
  [0x51, 'FUNCTION_NOT_PARALLEL', '-', 'HsmFailure'],
  [0x54, 'FUNCTION_NOT_SUPPORTED', 'A', 'Unsupported'],
  [0x60, 'KEY_HANDLE_INVALID', 'H', 'KeyUnavailable'],
  [0x62, 'KEY_SIZE_RANGE', 'A', 'Unsupported'],
  [0x63, 'KEY_TYPE_INCONSISTENT', 'A', 'KeyUsageInvalid'],
  [0x64, 'KEY_NOT_NEEDED', 'B', 'HsmFailure', 'suspect'],
  [0x65, 'KEY_CHANGED', 'B', 'HsmFailure', 'suspect'],
  [0x66, 'KEY_NEEDED', 'B', 'HsmFailure', 'suspect'],
  [0x67, 'KEY_INDIGESTIBLE', 'B', 'HsmFailure', 'suspect'],
  [0x68, 'KEY_FUNCTION_NOT_PERMITTED', 'A', 'KeyUsageInvalid'],
  [0x69, 'KEY_NOT_WRAPPABLE', 'A', 'Unsupported'],
  [0x6a, 'KEY_UNEXTRACTABLE', 'A', 'Unsupported'],
  [0x70, 'MECHANISM_INVALID', 'B', 'Unsupported'],
  [0x71, 'MECHANISM_PARAM_INVALID', 'B', 'Unsupported'],
  [0x82, 'OBJECT_HANDLE_INVALID', 'H', 'KeyUnavailable'],
  [0x90, 'OPERATION_ACTIVE', 'S', 'HsmFailure', 'suspect'],
  [0x91, 'OPERATION_NOT_INITIALIZED', 'S', 'HsmFailure', 'suspect'],
  [0xa0, 'PIN_INCORRECT', 'O', 'KeyUnavailable'],
  [0xa1, 'PIN_INVALID', 'O', 'KeyUnavailable'],
  [0xa2, 'PIN_LEN_RANGE', 'O', 'KeyUnavailable'],
  [0xa3, 'PIN_EXPIRED', 'O', 'KeyUnavailable'],
  [0xa4, 'PIN_LOCKED', 'O', 'KeyUnavailable'],
  [0xb0, 'SESSION_CLOSED', 'S', 'HsmFailure', 'lost'],
  [0xb1, 'SESSION_COUNT', 'T', 'HsmBusy'],
  [0xb3, 'SESSION_HANDLE_INVALID', 'S', 'HsmFailure', 'lost'],
  [0xb4, 'SESSION_PARALLEL_NOT_SUPPORTED', 'B', 'HsmFailure'],
  [0xb5, 'SESSION_READ_ONLY', 'S', 'HsmFailure', 'suspect'],
  [0xb6, 'SESSION_EXISTS', 'O', 'KeyUnavailable'],
  [0xb7, 'SESSION_READ_ONLY_EXISTS', 'O', 'KeyUnavailable'],
  [0xb8, 'SESSION_READ_WRITE_SO_EXISTS', 'O', 'KeyUnavailable'],
  [0xc0, 'SIGNATURE_INVALID', 'A', 'SignatureInvalid'],
  [0xc1, 'SIGNATURE_LEN_RANGE', 'A', 'SignatureInvalid'],
  [0xd0, 'TEMPLATE_INCOMPLETE', 'B', 'HsmFailure'],
  [0xd1, 'TEMPLATE_INCONSISTENT', 'B', 'HsmFailure'],
  [0xe0, 'TOKEN_NOT_PRESENT', 'D', 'KeyUnavailable', 'lost'],
  [0xe1, 'TOKEN_NOT_RECOGNIZED', 'D', 'KeyUnavailable', 'lost'],
  [0xe2, 'TOKEN_WRITE_PROTECTED', 'O', 'KeyUnavailable'],
  [0xf0, 'UNWRAPPING_KEY_HANDLE_INVALID', 'H', 'KeyUnavailable'],
  [0xf1, 'UNWRAPPING_KEY_SIZE_RANGE', 'B', 'HsmFailure'],
  [0xf2, 'UNWRAPPING_KEY_TYPE_INCONSISTENT', 'B', 'HsmFailure'],
  [0x100, 'USER_ALREADY_LOGGED_IN', '-', 'HsmFailure'],
  [0x101, 'USER_NOT_LOGGED_IN', 'L', 'KeyUnavailable'],
  [0x102, 'USER_PIN_NOT_INITIALIZED', 'O', 'KeyUnavailable'],
  [0x103, 'USER_TYPE_INVALID', 'O', 'KeyUnavailable'],
  [0x104, 'USER_ANOTHER_ALREADY_LOGGED_IN', 'O', 'KeyUnavailable'],
  [0x105, 'USER_TOO_MANY_TYPES', 'O', 'KeyUnavailable'],
  [0x110, 'WRAPPED_KEY_INVALID', 'A', 'CiphertextInvalid'],
  [0x112, 'WRAPPED_KEY_LEN_RANGE', 'A', 'CiphertextInvalid'],
  [0x113, 'WRAPPING_KEY_HANDLE_INVALID', 'H', 'KeyUnavailable'],
  [0x114, 'WRAPPING_KEY_SIZE_RANGE', 'B', 'HsmFailure'],
  [0x115, 'WRAPPING_KEY_TYPE_INCONSISTENT', 'B', 'HsmFailure'],
  [0x120, 'RANDOM_SEED_NOT_SUPPORTED', '-', 'HsmFailure'],
  [0x121, 'RANDOM_NO_RNG', 'D', 'KeyUnavailable'],
  [0x130, 'DOMAIN_PARAMS_INVALID', 'A', 'Unsupported'],
  [0x140, 'CURVE_NOT_SUPPORTED', 'A', 'Unsupported'],
  [0x150, 'BUFFER_TOO_SMALL', 'B', 'HsmFailure', 'suspect'],
  [0x160, 'SAVED_STATE_INVALID', 'B', 'HsmFailure', 'suspect'],
  [0x170, 'INFORMATION_SENSITIVE', 'B', 'HsmFailure'],
  [0x180, 'STATE_UNSAVEABLE', 'B', 'HsmFailure'],
  [0x190, 'CRYPTOKI_NOT_INITIALIZED', 'I', 'KeyUnavailable', 'lost'],
  [0x191, 'CRYPTOKI_ALREADY_INITIALIZED', '-', 'HsmFailure'],
  [0x1a0, 'MUTEX_BAD', 'I', 'KeyUnavailable', 'suspect'],
  [0x1a1, 'MUTEX_NOT_LOCKED', 'I', 'KeyUnavailable', 'suspect'],
  [0x1b0, 'NEW_PIN_MODE', 'O', 'KeyUnavailable'],
  [0x1b1, 'NEXT_OTP', 'O', 'KeyUnavailable'],
  [0x1b5, 'EXCEEDED_MAX_ITERATIONS', 'A', 'Unsupported'],
  [0x1b6, 'FIPS_SELF_TEST_FAILED', 'O', 'KeyUnavailable', 'lost'],
  [0x1b7, 'LIBRARY_LOAD_FAILED', 'I', 'KeyUnavailable', 'lost'],
  [0x1b8, 'PIN_TOO_WEAK', 'A', 'ValidationFailed'],
  [0x1b9, 'PUBLIC_KEY_INVALID', 'A', 'ValidationFailed'],
  [0x200, 'FUNCTION_REJECTED', 'A', 'Unsupported'],
  [0x201, 'TOKEN_RESOURCE_EXCEEDED', 'T', 'HsmBusy'],
  [0x202, 'OPERATION_CANCEL_FAILED', 'S', 'HsmFailure', 'suspect'],
  [0x203, 'KEY_EXHAUSTED', 'A', 'LimitExceeded'],
  [0x204, 'PENDING', 'B', 'HsmFailure', 'suspect'],
  [0x205, 'SESSION_ASYNC_NOT_SUPPORTED', 'B', 'HsmFailure'],
  [0x206, 'SEED_RANDOM_REQUIRED', 'D', 'KeyUnavailable'],
  [0x207, 'OPERATION_NOT_VALIDATED', 'O', 'KeyUnavailable'],
  [0x208, 'TOKEN_NOT_INITIALIZED', 'O', 'KeyUnavailable'],
  [0x209, 'PARAMETER_SET_NOT_SUPPORTED', 'A', 'Unsupported'],
]

/** p11-kit's and SoftHSM's header number these five codes 0x1C0 to 0x1C4. */
const aliases: readonly (readonly [alias: number, rv: number])[] = [
  [0x1c0, 0x1b5],
  [0x1c1, 0x1b6],
  [0x1c2, 0x1b7],
  [0x1c3, 0x1b8],
  [0x1c4, 0x1b9],
]

export const rvTable: ReadonlyMap<number, RvEntry> = new Map(
  rows.map(([rv, name, action, code, session = 'keep']) => [rv, { name: `CKR_${name}`, action, code, session }]),
)
const aliased = new Map(aliases)

/** CKR_VENDOR_DEFINED: from here on the number means what the vendor says. */
export const vendorDefined = 0x80000000

const vendorEntry: RvEntry = { name: 'CKR_VENDOR_DEFINED', action: 'S', code: 'HsmFailure', session: 'suspect' }
const unknownEntry: RvEntry = { name: 'CKR_UNKNOWN', action: 'S', code: 'HsmFailure', session: 'suspect' }

/** The entry of any number at all; unknown ones drop the session and may be retried elsewhere. */
export function rvEntry(rv: number): RvEntry {
  return rvTable.get(aliased.get(rv) ?? rv) ?? (rv >= vendorDefined ? vendorEntry : unknownEntry)
}

/** `CKR_PIN_INCORRECT`, `CKR_VENDOR_DEFINED(0x8000001a)`. */
export function rvName(rv: number): string {
  const entry = rvEntry(rv)
  return entry === vendorEntry || entry === unknownEntry ? `${entry.name}(0x${rv.toString(16)})` : entry.name
}

export interface RvContext {
  /** The C_ function. */
  readonly call: string
  readonly operation: OperationName
  readonly profile: Profile
}

/** Calls that open what a caller brought: whatever is wrong with it is one and the same error (no padding or tag oracle). */
const opensCiphertext = new Set(['C_Decrypt', 'C_UnwrapKey', 'C_DecapsulateKey'])

/** The table, corrected by what the call did and by the vendor's quirks. */
export function judge(rv: number, context: RvContext): RvEntry {
  const { profile, call } = context
  const entry = rvEntry(rv)
  const own = (action: Action, code: ErrorCode): RvEntry => ({ ...entry, action, code })

  const vendor = profile.vendorCodes[rv]
  if (vendor !== undefined) return own(vendor, vendor === 'A' ? 'ValidationFailed' : hsmCode(vendor))
  if (opensCiphertext.has(call)) {
    if (profile.badCiphertext.includes(rv) || rv === 0x20 || rv === 0x21) return own('A', 'CiphertextInvalid')
  }
  if (profile.throttled.includes(rv)) return own('T', 'HsmBusy')
  if (call === 'C_GetAttributeValue') {
    if (profile.vanished.includes(rv)) return own('H', 'KeyUnavailable')
    if (profile.throttledReads.includes(rv)) return own('T', 'HsmBusy')
  }
  if (call === 'C_DeriveKey' && context.operation === 'derive' && profile.badPoint.includes(rv)) {
    return own('A', 'ValidationFailed')
  }
  return entry
}

function hsmCode(action: Action): ErrorCode {
  if (action === 'T') return 'HsmBusy'
  return action === 'D' || action === 'O' || action === 'I' || action === 'L' ? 'KeyUnavailable' : 'HsmFailure'
}
