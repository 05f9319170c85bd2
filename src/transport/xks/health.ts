/**
 * GetHealthStatus: what the fleet behind the proxy can do now. Deep: a key of the gateway's own encrypts and decrypts in the module, never a
 * customer's. Answers are kept for a while, since AWS KMS asks every store every few minutes; one look at a time.
 */
import { randomBytes } from 'node:crypto'
import { type Deadline, deadlineIn } from '../../call.ts'
import type { KeyEntry } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { GroupState } from '../../hsm/port.ts'
import type { DirectKeys } from '../../keys/keys.ts'

export interface HealthParts {
  readonly groups: () => readonly GroupState[]
  /** Names of the groups that keys of stores live in. */
  readonly group: string
  readonly direct: Pick<DirectKeys, 'encrypt' | 'decrypt'>
  /** A key of the gateway's own, in no store. */
  readonly proofKey: () => Promise<KeyEntry>
  /** What the operator calls the module behind a token. */
  readonly vendorOf: (token: string) => string
  readonly failed: (cause: unknown) => void
}

export interface Health {
  describe(): Promise<Readonly<Record<string, unknown>>>
}

const vendor = 'hsmgate'
/** At most 60 s by the API. */
const goodForMs = 10_000
const badForMs = 1_000
const proofMs = 2_000
const fleetMax = 10

export function createHealth(parts: HealthParts): Health {
  let provenAtMs = Number.NEGATIVE_INFINITY
  let isGood = false
  let proving: Promise<void> | undefined

  async function look(): Promise<void> {
    try {
      await prove(parts.direct, await parts.proofKey(), deadlineIn(proofMs))
      isGood = true
    } catch (cause) {
      isGood = false
      parts.failed(cause)
    } finally {
      provenAtMs = performance.now()
      proving = undefined
    }
  }

  function statusOf(token: GroupState['tokens'][number], workers: GroupState['workers']): string {
    const own = workers.filter(({ token: name, role }) => name === token.name && role === 'serve')
    const ready = own.filter(({ state }) => state === 'ready').length
    if (!isGood || token.trouble !== undefined || ready === 0) return 'UNAVAILABLE'
    return ready * 2 < own.length ? 'DEGRADED' : 'ACTIVE'
  }

  return {
    async describe() {
      if (performance.now() - provenAtMs > (isGood ? goodForMs : badForMs)) {
        proving ??= look()
        await proving
      }
      const group = parts.groups().find(({ name }) => name === parts.group)
      const tokens = (group?.tokens ?? []).slice(0, fleetMax)
      const fleet = tokens.map((token) => ({
        id: token.serial || token.name,
        model: parts.vendorOf(token.name),
        healthStatus: statusOf(token, group?.workers ?? []),
      }))
      return {
        xksProxyFleetSize: 1,
        xksProxyVendor: vendor,
        xksProxyModel: 'hsmgate XKS proxy',
        ekmVendor: fleet[0]?.model ?? vendor,
        ekmFleetDetails: fleet.length > 0 ? fleet : [{ id: vendor, model: vendor, healthStatus: 'UNAVAILABLE' }],
      }
    },
  }
}

/** Two encryptions of one plaintext, whose IVs and ciphertexts differ, and back. */
async function prove(direct: HealthParts['direct'], entry: KeyEntry, deadline: Deadline): Promise<void> {
  const plaintext = randomBytes(32)
  const context = Buffer.from('hsmgate health')
  const encrypt = () => direct.encrypt(entry, { plaintext: Buffer.from(plaintext), context }, deadline)
  const [one, two] = await Promise.all([encrypt(), encrypt()])
  const isRepeated = one.iv.equals(two.iv) || one.ciphertext.equals(two.ciphertext)
  if (isRepeated || one.iv.every((byte) => byte === 0)) throw broken('repeats initialization vectors')
  const back = await direct.decrypt(entry, { ...one, context }, deadline)
  if (!plaintext.equals(back)) throw broken('does not decrypt what it encrypted')
}

function broken(what: string): GatewayError {
  return new GatewayError('HsmFailure', undefined, { detail: `the module ${what}` })
}
