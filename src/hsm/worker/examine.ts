/**
 * The first look at a module: loads it, initialises it, asks what it is, and lets go of it again. No session, no login. It may be the first
 * and last frame of a worker's life: a module that crashes or hangs here takes only this process along.
 */
import type { ExamineRequest, Limit, ModuleFacts, TokenFacts } from '../examination.ts'
import type { Addon, SlotDescription } from './addon.ts'
import { refusal } from './failure.ts'
import type { Jobs } from './jobs.ts'
import { asked, findSlot, openModule } from './login.ts'
import { mechanismName } from './mechanism-names.ts'

/** CK_TOKEN_INFO.flags (PKCS#11 3.2, 3.2). */
const tokenFlags: readonly (readonly [bigint, string])[] = [
  [0x1n, 'RNG'],
  [0x2n, 'WRITE_PROTECTED'],
  [0x4n, 'LOGIN_REQUIRED'],
  [0x8n, 'USER_PIN_INITIALIZED'],
  [0x20n, 'RESTORE_KEY_NOT_NEEDED'],
  [0x40n, 'CLOCK_ON_TOKEN'],
  [0x100n, 'PROTECTED_AUTHENTICATION_PATH'],
  [0x200n, 'DUAL_CRYPTO_OPERATIONS'],
  [0x400n, 'TOKEN_INITIALIZED'],
  [0x800n, 'SECONDARY_AUTHENTICATION'],
  [0x10000n, 'USER_PIN_COUNT_LOW'],
  [0x20000n, 'USER_PIN_FINAL_TRY'],
  [0x40000n, 'USER_PIN_LOCKED'],
  [0x80000n, 'USER_PIN_TO_BE_CHANGED'],
  [0x100000n, 'SO_PIN_COUNT_LOW'],
  [0x200000n, 'SO_PIN_FINAL_TRY'],
  [0x400000n, 'SO_PIN_LOCKED'],
  [0x800000n, 'SO_PIN_TO_BE_CHANGED'],
  [0x1000000n, 'ERROR_STATE'],
]
const unavailable = 0xffffffffffffffffn

/** @throws CallFailure when the module refuses, or has no such token. */
export function examineModule(addon: Addon, jobs: Jobs, request: ExamineRequest): ModuleFacts {
  if (typeof request.module !== 'string') throw refusal('ValidationFailed', 'malformed examination', 'B')
  const module = openModule(addon, request, jobs)
  try {
    const slots = asked(jobs, 'C_GetSlotList', () => module.slots())
    const present = slots.filter(({ tokenPresent }) => tokenPresent)
    const chosen = choose(present, request, () => asked(jobs, 'C_GetTokenInfo', () => findSlot(module, request)))
    const mechanisms = chosen && asked(jobs, 'C_GetMechanismList', () => module.mechanisms(chosen.slot))
    const { cryptokiVersion, manufacturer, description, libraryVersion } = module
    return {
      cryptokiVersion,
      manufacturer,
      description,
      libraryVersion,
      slots: slots.length,
      tokens: present.map(tokenFacts),
      ...(chosen && { token: tokenFacts(chosen) }),
      mechanisms: (mechanisms ?? []).map(({ type, minKeySize, maxKeySize }) => ({
        name: mechanismName(type),
        type,
        minKeySize,
        maxKeySize,
      })),
    }
  } finally {
    try {
      module.finalize()
    } catch {} // the process ends next
  }
}

function choose(
  present: readonly SlotDescription[],
  { label, serial }: ExamineRequest,
  find: () => SlotDescription,
): SlotDescription | undefined {
  if (label !== undefined || serial !== undefined) return find()
  const initialised = present.filter(({ flags }) => (flags & 0x400n) !== 0n)
  return initialised.length === 1 ? initialised[0] : undefined
}

function tokenFacts(slot: SlotDescription): TokenFacts {
  const { label, serial, manufacturer, model, firmware, flags } = slot
  return {
    slot: slot.slot.toString(),
    label,
    serial,
    manufacturer,
    model,
    firmware,
    flags: tokenFlags.filter(([bit]) => (flags & bit) !== 0n).map(([, name]) => name),
    maxSessions: limitOf(slot.maxSessions),
    maxRwSessions: limitOf(slot.maxRwSessions),
    freePrivateMemory: slot.freePrivateMemory === unavailable ? null : Number(slot.freePrivateMemory),
  }
}

/** 0 is CK_EFFECTIVELY_INFINITE. */
function limitOf(count: bigint): Limit {
  if (count === 0n) return 'none'
  return count === unavailable ? null : Number(count)
}
