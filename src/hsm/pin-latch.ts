/**
 * The PIN latch: a PIN that a token refused is never sent again, by any worker, replacement or restarted gateway, until its file
 * changes or an operator says so, because HSMs lock a user after a few wrong PINs. The refused PIN is named by its file's inode, change time and
 * size, never by a hash of the PIN: a PIN has too few bits for a hash to hide it.
 *
 * The record is on disk before `refuse` returns. One owner per state folder.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { loadJsonFile, saveJsonFile } from './durable-file.ts'
import type { PinFileIdentity } from './frames.ts'

/** Whose PIN: the token as the configuration names it (its serial where given), and the user who logs in. */
export interface PinOwner {
  readonly serial?: string
  readonly label?: string
  readonly user?: string
}

export interface PinLatch {
  /** True when this owner's PIN was refused with exactly this file. */
  isRefused(owner: PinOwner, pin: PinFileIdentity): boolean
  /** What was refused last for this owner. */
  refusedOf(owner: PinOwner): PinFileIdentity | undefined
  /** CK_RV of that refusal; 0 when the module died of it. */
  rvOf(owner: PinOwner): number | undefined
  /** Durable when it returns, and in force in this process even when it throws (full disk). Several identities when the file changed while the login ran and it is unknown which one was read. */
  refuse(owner: PinOwner, pins: readonly PinFileIdentity[], rv: number): void
  clear(owner: PinOwner): void
}

interface Refusal {
  readonly token: string
  readonly user: string
  readonly pins: readonly PinFileIdentity[]
  readonly rv: number
  readonly at: string
}

/** `undefined` when the file can't be examined. */
export function findPinFile(path: string): PinFileIdentity | undefined {
  try {
    const { ino, ctimeNs, size } = statSync(path, { bigint: true })
    return { inode: String(ino), changeTimeNs: String(ctimeNs), bytes: Number(size) }
  } catch {
    return undefined
  }
}

export function samePinFile(a: PinFileIdentity | undefined, b: PinFileIdentity | undefined): boolean {
  return a?.inode === b?.inode && a?.changeTimeNs === b?.changeTimeNs && a?.bytes === b?.bytes
}

/** @throws when the state file exists and is unreadable: without it a refused PIN could be tried again. */
export function openPinLatch(stateDirectory: string): PinLatch {
  const path = join(stateDirectory, 'pin-refused.json')
  const refusals = new Map<string, Refusal>()
  for (const refusal of parseRefusals(loadJsonFile(path), path))
    refusals.set(`${refusal.token}\n${refusal.user}`, refusal)

  const tokenOf = (owner: PinOwner): string =>
    owner.serial === undefined ? `label:${owner.label}` : `serial:${owner.serial}`
  const nameOf = (owner: PinOwner): string => `${tokenOf(owner)}\n${owner.user ?? ''}`
  const save = (): void => saveJsonFile(path, { version: 1, refusals: [...refusals.values()] })

  return {
    isRefused: (owner, pin) => refusals.get(nameOf(owner))?.pins.some((refused) => samePinFile(refused, pin)) ?? false,
    refusedOf: (owner) => refusals.get(nameOf(owner))?.pins.at(-1),
    rvOf: (owner) => refusals.get(nameOf(owner))?.rv,
    refuse(owner, pins, rv) {
      const refusal = { token: tokenOf(owner), user: owner.user ?? '', pins, rv, at: new Date().toISOString() }
      refusals.set(nameOf(owner), refusal)
      save()
    },
    clear(owner) {
      if (refusals.delete(nameOf(owner))) save()
    },
  }
}

function parseRefusals(value: unknown, path: string): readonly Refusal[] {
  if (value === undefined) return []
  const refusals = (value as { refusals?: unknown }).refusals
  if (!Array.isArray(refusals)) throw new Error(`${path} is damaged: it has no list of refusals`)
  for (const refusal of refusals as Partial<Refusal>[]) {
    if (typeof refusal.token !== 'string' || typeof refusal.user !== 'string' || !Array.isArray(refusal.pins))
      throw new Error(`${path} is damaged: a refusal lacks token, user or pins`)
  }
  return refusals as Refusal[]
}
