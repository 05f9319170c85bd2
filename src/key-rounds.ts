/**
 * The gateway's rounds over keys whose date has come (rotation, expiry): at the start, every minute, and at once when something is due now. One
 * round at a time; what happened becomes service events of the journal.
 */
import type { Journal } from './audit/audit.ts'
import type { DueEvents, KeyService } from './keys/keys.ts'
import type { Observer } from './observe/observe.ts'

const roundMs = 60_000

export interface KeyRounds extends AsyncDisposable {
  /** A round as soon as the one under way is over; resolves when it is. Never rejects. */
  run(): Promise<void>
}

export interface KeyRoundsParts {
  /** One round. */
  readonly look: (events: DueEvents) => Promise<void>
  readonly keys: Pick<KeyService, 'keyArn'>
  readonly journal: Journal
  readonly observer: Observer
}

const notes = {
  RotateKey: 'a key was rotated',
  SynchronizeMultiRegionKey: 'replicas have the new key material',
  DeleteExpiredKeyMaterial: 'imported key material expired',
}

export function startKeyRounds({ look, keys, journal, observer }: KeyRoundsParts): KeyRounds {
  const events: DueEvents = {
    async happened({ key }, name, details) {
      const { account, region, keyId } = key
      const resources = [{ account, type: 'AWS::KMS::Key', arn: keys.keyArn(key) }]
      await journal.appendEvent({ name, account, region, details, resources })
      observer.note('info', notes[name], { keyId, account, region })
    },
    failed: ({ keyId }, cause) => observer.unexpected(`rotation or expiry of ${keyId}`, cause),
  }
  const round = async () => {
    await look(events).catch((cause) => observer.unexpected('rounds over keys', cause))
  }
  let running = Promise.resolve()
  const run = () => {
    running = running.then(round)
    return running
  }
  run()
  const timer = setInterval(run, roundMs)
  return {
    run,
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await running
    },
  }
}
