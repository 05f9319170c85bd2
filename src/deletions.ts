/**
 * The gateway's rounds of deletion: what is due is destroyed at the start, every minute and when an operator confirms. One round at a
 * time. What stands against it is told to the operator once, when it begins, and as a metric while it lasts.
 */
import type { Journal } from './audit/audit.ts'
import type { KeyEntry } from './catalog/catalog.ts'
import type { DeletionEvents, DestructionGate, KeyService, Pause } from './keys/keys.ts'
import type { Observer } from './observe/observe.ts'
import type { Problem } from './problem.ts'

const roundMs = 60_000

export interface Deletions extends AsyncDisposable {
  /** A round as soon as the one under way is over; resolves when it is. Never rejects. */
  run(): Promise<void>
}

export interface DeletionsParts {
  /** One round. */
  readonly destroy: (events: DeletionEvents) => Promise<unknown>
  readonly keys: KeyService
  readonly journal: Journal
  readonly observer: Observer
  readonly gate: DestructionGate
}

export function startDeletions({ destroy, keys, journal, observer, gate }: DeletionsParts): Deletions {
  const told = new Set<Pause['reason']>()
  const events: DeletionEvents = {
    async deleted(entry, orphans) {
      const { key } = entry
      // Pairs that imports were wrapped to: no customer's key.
      if (key.purpose === 'system') return
      const resources = [{ account: key.account, type: 'AWS::KMS::Key', arn: keys.keyArn(key) }]
      const details = { keyId: key.keyId, ...describeStore(entry, orphans) }
      await journal.appendEvent({ name: 'DeleteKey', account: key.account, region: key.region, details, resources })
      observer.note('warn', 'a key was destroyed', { keyId: key.keyId, account: key.account, region: key.region })
    },
    failed: ({ keyId }, cause) => observer.unexpected(`deletion of ${keyId}`, cause),
    paused(pauses) {
      for (const pause of pauses) if (!told.has(pause.reason)) observer.problem(describePause(pause))
      told.clear()
      for (const { reason } of pauses) told.add(reason)
    },
  }
  /** AWS KMS Developer Guide, "DeleteKey" in CloudTrail: of a key in an AWS CloudHSM key store. */
  function describeStore(entry: KeyEntry, orphans: readonly string[]): Readonly<Record<string, unknown>> {
    if (entry.key.origin !== 'AWS_CLOUDHSM') return {}
    const { storeId, clusterId } = keys.storeOf(entry) ?? {}
    const backingKeys = entry.materials.map(({ objectId }) => objectId.toString('hex'))
    return {
      customKeyStoreId: storeId,
      ...(clusterId === undefined ? {} : { clusterId }),
      backingKeysDeletionStatus: backingKeys.map((backingKeyId) => ({
        backingKeyId,
        deletionStatus: orphans.includes(backingKeyId) ? 'FAILURE' : 'SUCCESS',
      })),
    }
  }
  const round = async () => {
    await destroy(events).catch((cause) => observer.unexpected('deletion', cause))
  }
  let running = Promise.resolve()
  const run = () => {
    running = running.then(round)
    return running
  }
  events.paused(gate.pauses())
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

export function describePause(pause: Pause): Problem {
  if (pause.reason === 'clock') {
    return {
      at: 'clock',
      cause: `wall time is off by ${Math.round(pause.jumpMs / 1000)} s; no key is destroyed meanwhile`,
      remedy: 'set the clock right, or confirm it: hsmgate clock confirm',
    }
  }
  const { catalogRevision, signedRevision } = pause
  return {
    at: 'catalog',
    cause: `the catalog is an older copy (revision ${catalogRevision}; the journal has signed ${signedRevision}); no key is destroyed meanwhile`,
    remedy:
      'restore the newest catalog; or look at `hsmgate key reconcile` and `hsmgate clock show`, cancel what must not go, then: hsmgate clock confirm',
  }
}
