/**
 * GetHealthStatus: what the tokens that a store's keys live in can do now. Deep: in each of their groups a key of the gateway's own encrypts and
 * decrypts in the module, never a customer's. What was seen is kept for a while, since AWS KMS asks every store every few minutes; one look at
 * a time for each group.
 */
import { randomBytes } from 'node:crypto'
import { type Deadline, deadlineIn } from '../../call.ts'
import type { KeyEntry } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { GroupState } from '../../hsm/port.ts'
import type { DirectKeys } from '../../keys/keys.ts'
import type { Store, StoreKey } from './stores.ts'

export interface HealthParts {
  readonly groups: () => readonly GroupState[]
  /** The group of new keys, which a store without keys is judged by. */
  readonly defaultGroup: string
  readonly direct: Pick<DirectKeys, 'find' | 'encrypt' | 'decrypt'>
  /** A key of the gateway's own in a group, in no store. */
  readonly proofKey: (group: string) => Promise<KeyEntry>
  /** What the operator calls the module behind a token. */
  readonly vendorOf: (token: string) => string
  readonly proven: (group: string, isGood: boolean) => void
  readonly failed: (cause: unknown, group: string) => void
}

export interface Health {
  describe(store: Pick<Store, 'keys'>): Promise<Readonly<Record<string, unknown>>>
}

interface Proof {
  atMs: number
  isGood: boolean
  /** While a look is under way. */
  looking?: Promise<void> | undefined
}

const vendor = 'hsmgate'
/** At most 60 s by the API. */
const goodForMs = 10_000
const badForMs = 1_000
const proofMs = 2_000
const fleetMax = 10

export function createHealth(parts: HealthParts): Health {
  const proofs = new Map<string, Proof>()
  /** A key never changes its group. */
  const groupsOfKeys = new WeakMap<StoreKey, string>()

  async function look(group: string, proof: Proof): Promise<void> {
    try {
      await prove(parts.direct, await parts.proofKey(group), deadlineIn(proofMs))
      proof.isGood = true
    } catch (cause) {
      proof.isGood = false
      parts.failed(cause, group)
    } finally {
      proof.atMs = performance.now()
      proof.looking = undefined
      parts.proven(group, proof.isGood)
    }
  }

  async function isGood(group: string): Promise<boolean> {
    const proof = proofs.get(group) ?? { atMs: Number.NEGATIVE_INFINITY, isGood: false }
    proofs.set(group, proof)
    if (performance.now() - proof.atMs > (proof.isGood ? goodForMs : badForMs)) {
      proof.looking ??= look(group, proof)
      await proof.looking
    }
    return proof.isGood
  }

  async function findGroup(storeKey: StoreKey): Promise<string | undefined> {
    const known = groupsOfKeys.get(storeKey)
    if (known !== undefined) return known
    const entry = await parts.direct.find(storeKey.key)
    if (entry !== undefined) groupsOfKeys.set(storeKey, entry.key.group)
    return entry?.key.group
  }

  /** Those of the store's keys, in the order of the configuration. */
  async function findGroups({ keys }: Pick<Store, 'keys'>): Promise<readonly GroupState[]> {
    const all = parts.groups()
    if (all.length === 1) return all
    const used = new Set<string>()
    for (const storeKey of keys.values()) {
      const group = await findGroup(storeKey)
      if (group !== undefined) used.add(group)
    }
    if (used.size === 0) used.add(parts.defaultGroup)
    return all.filter(({ name }) => used.has(name))
  }

  async function describeGroup({ name, tokens, workers }: GroupState): Promise<readonly FleetMember[]> {
    const isProven = await isGood(name)
    return tokens.map((token) => ({
      id: token.serial || token.name,
      model: parts.vendorOf(token.name),
      healthStatus: isProven ? statusOf(token, workers) : 'UNAVAILABLE',
    }))
  }

  return {
    async describe(store) {
      const groups = await findGroups(store)
      const members = (await Promise.all(groups.map(describeGroup))).flat()
      // AWS KMS leaves a fleet that is all unavailable: who serves is never what is cut off
      const fleet = [...members].sort((a, b) => ranks[a.healthStatus] - ranks[b.healthStatus]).slice(0, fleetMax)
      return {
        xksProxyFleetSize: 1,
        xksProxyVendor: vendor,
        xksProxyModel: 'hsmgate XKS proxy',
        ekmVendor: members[0]?.model ?? vendor,
        ekmFleetDetails: fleet.length > 0 ? fleet : [{ id: vendor, model: vendor, healthStatus: 'UNAVAILABLE' }],
      }
    },
  }
}

interface FleetMember {
  readonly id: string
  readonly model: string
  readonly healthStatus: keyof typeof ranks
}

const ranks = { ACTIVE: 0, DEGRADED: 1, UNAVAILABLE: 2 } as const

function statusOf(token: GroupState['tokens'][number], workers: GroupState['workers']): keyof typeof ranks {
  const own = workers.filter(({ token: name, role }) => name === token.name && role === 'serve')
  const ready = own.filter(({ state }) => state === 'ready').length
  if (token.trouble !== undefined || ready === 0) return 'UNAVAILABLE'
  return ready * 2 < own.length ? 'DEGRADED' : 'ACTIVE'
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
