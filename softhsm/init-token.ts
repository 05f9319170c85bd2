/**
 * The child process that initialises one SoftHSM2 token: reads an `InitialiseToken` as JSON from stdin, writes the PIN file, then
 * initialises the first empty slot and prints an `InitialisedToken`. The PIN is on disk before the token exists, so that no token
 * is ever without its PIN. Both PINs live in buffers that are wiped.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { loadAddon } from '../src/hsm/worker/addon.ts'

export interface InitialiseToken {
  readonly module: string
  readonly label: string
  /** Created with mode 0600; must not exist. */
  readonly pinFile: string
}

export interface InitialisedToken {
  readonly serial: string
}

/** CKF_TOKEN_INITIALIZED (PKCS#11 v2.40 section 3.2). */
const tokenInitialised = 0x400n

/** 32 characters of hexadecimal, from 16 random bytes, without ever being a string. */
function makePin(): Buffer {
  const digits = Buffer.from('0123456789abcdef')
  const bytes = randomBytes(16)
  const pin = Buffer.alloc(32)
  for (const [index, byte] of bytes.entries()) {
    pin[2 * index] = digits[byte >> 4]!
    pin[2 * index + 1] = digits[byte & 15]!
  }
  bytes.fill(0)
  return pin
}

function writePinFile(file: string, pin: Buffer): void {
  const fd = openSync(file, 'wx', 0o600)
  try {
    writeSync(fd, pin)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function initialise({ module: modulePath, label, pinFile }: InitialiseToken): InitialisedToken {
  const module = loadAddon().openModule(modulePath)
  const soPin = makePin()
  const userPin = makePin()
  try {
    const empty = module.slots().find(({ tokenPresent, flags }) => tokenPresent && (flags & tokenInitialised) === 0n)
    if (empty === undefined) throw new Error(`${modulePath} offers no uninitialised token`)
    writePinFile(pinFile, userPin)
    module.initToken(empty.slot, label, soPin, userPin)
    const made = module.slots().find((slot) => (slot.flags & tokenInitialised) !== 0n && slot.label.trimEnd() === label)
    if (made === undefined) throw new Error(`${modulePath} initialised a token but does not show it`)
    return { serial: made.serial.trimEnd() }
  } finally {
    soPin.fill(0)
    userPin.fill(0)
    module.finalize()
  }
}

process.umask(0o077)
try {
  const order = JSON.parse(await text(process.stdin)) as InitialiseToken
  process.stdout.write(JSON.stringify(initialise(order)))
} catch (cause) {
  process.stderr.write(cause instanceof Error ? cause.message : String(cause))
  process.exitCode = 1
}
