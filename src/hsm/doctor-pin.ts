/**
 * Whether the doctor may try a PIN: never one that is latched as refused, and none while a wrong one would lock the user. What the token
 * refuses is remembered where the gateway remembers it.
 */
import { statSync } from 'node:fs'
import type { DoctorOptions, Draft, Patient } from './diagnosis.ts'
import type { TokenFacts } from './examination.ts'
import type { PinFileIdentity } from './frames.ts'
import { findPinFile, openPinLatch, type PinLatch, type PinOwner } from './pin-latch.ts'

export function findReasonNotToLogIn(
  patient: Patient,
  options: DoctorOptions,
  { flags, label, serial }: TokenFacts,
  draft: Draft,
): string | undefined {
  const { pinFile } = patient
  if (pinFile === undefined) return 'no PIN file was given'
  if (flags.includes('USER_PIN_LOCKED') || flags.includes('USER_PIN_TO_BE_CHANGED'))
    return 'the token does not take this PIN now'
  if (flags.includes('USER_PIN_FINAL_TRY')) {
    const remedy = "make sure of the PIN, and log in once with the HSM's own tools"
    draft.problems.push({ at: `token ${label}`, cause: 'one wrong PIN more locks the user', remedy })
    return 'one wrong PIN more would lock the user'
  }
  const missing = findFileFault(pinFile)
  if (missing !== undefined) {
    draft.problems.push({
      at: pinFile,
      cause: `the PIN file ${missing}`,
      remedy: 'create it with mode 0600, with the PIN and nothing else in it',
    })
    return 'there is no PIN file'
  }
  if (((statSync(pinFile).mode ?? 0) & 0o077) !== 0) {
    draft.warnings.push({ at: pinFile, cause: 'the PIN file is open to other users', remedy: `chmod 600 ${pinFile}` })
  }
  const latch = openLatch(options, draft)
  if (latch === undefined) return 'what PINs were refused cannot be read'
  const pin = findPinFile(pinFile)
  if (pin !== undefined && ownersOf(patient, label, serial).some((owner) => latch.isRefused(owner, pin))) {
    draft.problems.push({
      at: pinFile,
      cause: 'the token refused this PIN before; it is not tried again, since tokens lock after a few wrong PINs',
      remedy: retryRemedy(patient),
    })
    return 'the token refused this PIN before'
  }
  return undefined
}

export function retryRemedy({ name }: Patient): string {
  return name === undefined
    ? 'write the right PIN into the file'
    : `write the right PIN into the file, or run hsmgate token retry-login ${name}`
}

/** The configuration names a token by label or by serial: a refusal counts under either. */
function ownersOf({ cryptoUser: user }: Patient, label: string, serial: string): readonly PinOwner[] {
  return [
    { serial, user },
    { label, user },
  ]
}

function openLatch({ latchDirectory }: DoctorOptions, draft: Draft): PinLatch | undefined {
  try {
    return openPinLatch(latchDirectory)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    draft.problems.push({
      at: latchDirectory,
      cause: `the record of refused PINs cannot be read (${code ?? message})`,
      remedy: "run the command as the gateway's own user or as root",
    })
    return undefined
  }
}

/** Durable when it returns; else a problem says so. */
export function rememberRefusal(
  patient: Patient,
  options: DoctorOptions,
  { label, serial }: TokenFacts,
  pins: readonly PinFileIdentity[],
  rv: number,
  draft: Draft,
): void {
  const latch = openLatch(options, draft)
  try {
    for (const owner of ownersOf(patient, label, serial)) latch?.refuse(owner, pins, rv)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const remedy = 'do not run this again with the same PIN: tokens lock after a few wrong ones'
    draft.problems.push({
      at: options.latchDirectory,
      cause: `the refused PIN cannot be remembered (${code ?? 'unknown'})`,
      remedy,
    })
  }
}

/** What is wrong with a file that must be there. */
export function findFileFault(path: string): string | undefined {
  try {
    return statSync(path).isFile() ? undefined : 'is not a file'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'does not exist' : `cannot be examined (${code})`
  }
}
