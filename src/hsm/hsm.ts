/**
 * Opens the HSM layer: tokens with their workers, groups with their routers, and the port that the rest of the gateway uses. One call of the
 * port becomes one frame; the tables here say which lane it takes and what may happen to it when its worker dies.
 *
 * A token that can't serve never stops the others: its trouble is state, not an exception. Owns the worker processes and the
 * state folder's `pin-refused.json` and `capabilities.json`; one per gateway.
 */
import type { Deadline } from '../call.ts'
import { GatewayError } from '../error.ts'
import { openCapabilityCache } from './capability-cache.ts'
import { type HsmEvents, silentEvents } from './events.ts'
import {
  algorithms,
  constructions,
  type OperationName,
  operations,
  purposes,
  type Request,
  type Response,
  specs,
} from './frames.ts'
import { openPinLatch } from './pin-latch.ts'
import type {
  AdoptableObject,
  Capabilities,
  CipherAlgorithm,
  CipherInput,
  GeneratedKey,
  GenerateIntent,
  GroupState,
  Hsm,
  HsmKey,
  ObjectSummary,
  TokenGroups,
} from './port.ts'
import type { OperationRule } from './routed-call.ts'
import { createRouter, type Router } from './router.ts'
import { createSupervisor, type SupervisorOptions, type TokenSupervisor } from './supervisor.ts'
import type { TokenConfig } from './token-config.ts'
import { ownWorker, type WorkerProcess } from './worker-process.ts'

export interface HsmOptions {
  readonly tokens: readonly TokenConfig[]
  /** Each token belongs to exactly one group. */
  readonly groups: readonly { readonly name: string; readonly tokens: readonly string[] }[]
  /** Exclusively this gateway's. */
  readonly stateDirectory: string
  readonly observe?: Partial<HsmEvents>
  /** Lets an imported key pass through a worker's memory where the module cannot unwrap it itself; default false. */
  readonly allowImportThroughMemory?: boolean
  /** Program and arguments of a worker, when it is not hsmgate's own. */
  readonly workerCommand?: readonly string[]
}

export interface SupervisedHsm extends Hsm, TokenGroups {
  /** What workers that start from now on are told of their tokens, by name; others are ignored. */
  setTokens(tokens: readonly TokenConfig[]): void
  /** Starts new workers, moves the traffic, drains the old ones. */
  replaceWorkers(reason: string): void
}

const cryptographic: OperationRule = { lane: 'hot', replay: 'hedge' }
const rules = {
  cryptographic,
  wrap: { lane: 'admin', replay: 'hedge', hangMs: 10_000 },
  /** Session objects die with their worker, so nothing is left behind by one that died. */
  makeSessionObject: { lane: 'admin', replay: 'replay', hangMs: 300_000 },
  sessionObject: { lane: 'admin', replay: 'never', hangMs: 30_000 },
  makeTokenObject: { lane: 'manage', replay: 'never', hangMs: 300_000 },
  destroyTokenObject: { lane: 'manage', replay: 'never', hangMs: 60_000 },
  readToken: { lane: 'manage', replay: 'replay', hangMs: 120_000 },
} as const satisfies Record<string, OperationRule>

const forgetLimitMs = 2000
const closeLimitMs = 5000
const nothing = new Uint8Array(0)

const codesOf = <T extends string>(names: readonly T[]) =>
  Object.fromEntries(names.map((name, code) => [name, code])) as Readonly<Record<T, number>>
const algorithmCodes = codesOf(algorithms)
const purposeCodes = codesOf(purposes)
const specCodes = codesOf(specs)
const constructionCodes = codesOf(constructions)

interface Group {
  readonly name: string
  readonly router: Router
  readonly tokens: readonly TokenSupervisor[]
}

/** Resolves when every group has a warm worker or it is known why it has none. @throws TypeError for tokens and groups that don't fit together, Error when `pin-refused.json` is damaged. */
export async function openHsm(options: HsmOptions): Promise<SupervisedHsm> {
  const shared = {
    latch: openPinLatch(options.stateDirectory),
    cache: openCapabilityCache(options.stateDirectory),
    observe: { ...silentEvents, ...options.observe },
  }
  const groups = assemble(options, shared)
  const open = async (members: Iterable<Group>) => {
    const tokens = [...members].flatMap((group) => group.tokens)
    for (const token of tokens) token.start()
    await Promise.all(tokens.map(({ settled }) => settled))
  }
  await open(groups.values())
  return {
    ...createPort(groups),
    async openGroup(name, token) {
      if (groups.has(name)) throw new TypeError(`there is a group ${name} already`)
      const one = { ...options, tokens: [token], groups: [{ name, tokens: [token.name] }] }
      const group = assemble(one, shared).get(name) as Group
      groups.set(name, group)
      await open([group])
      const trouble = groups.get(name) === group ? troubleOf(group.tokens) : 'it was closed'
      if (trouble === undefined) return { ready: true }
      return { ready: false, trouble, failure: group.tokens[0]?.failure() }
    },
    async closeGroup(name) {
      const group = groups.get(name)
      groups.delete(name)
      if (group !== undefined) await closeAll([group])
    },
  }
}

async function closeAll(groups: readonly Group[]): Promise<void> {
  await Promise.all(groups.map(({ router }) => router.close(closeLimitMs)))
  await Promise.all(groups.flatMap(({ tokens }) => tokens.map((token) => token.close())))
}

function assemble(
  { tokens, groups, workerCommand = ownWorker, allowImportThroughMemory = false }: HsmOptions,
  { latch, cache, observe }: Pick<SupervisorOptions, 'latch' | 'cache' | 'observe'>,
): Map<string, Group> {
  const assembled = new Map<string, Group>()
  const free = new Map(tokens.map((token) => [token.name, token]))
  for (const { name, tokens: members } of groups) {
    const supervisors = new Map<string, TokenSupervisor>()
    const router = createRouter({
      group: name,
      observe,
      breakerOf: (worker) => supervisors.get(worker.token)!.breaker,
      replace: (worker, reason) => supervisors.get(worker.token)?.replace(worker, reason),
      trouble: () => troubleOf([...supervisors.values()]),
    })
    for (const member of members) {
      const token = free.get(member)
      if (token === undefined) throw new TypeError(`token ${member} is not configured, or belongs to two groups`)
      free.delete(member)
      const context = {
        token,
        command: workerCommand,
        latch,
        cache,
        observe,
        allowImportThroughMemory,
        router: () => router,
      }
      supervisors.set(member, createSupervisor(context))
    }
    assembled.set(name, { name, router, tokens: [...supervisors.values()] })
  }
  if (free.size > 0) throw new TypeError(`token ${[...free.keys()].join(', ')} belongs to no group`)
  return assembled
}

/** A group is in trouble when each of its tokens is. */
function troubleOf(tokens: readonly TokenSupervisor[]): string | undefined {
  const troubles = tokens.map((token) => token.trouble())
  if (troubles.includes(undefined)) return undefined
  return tokens.map(({ token }, i) => `token ${token.name}: ${troubles[i]}`).join('; ')
}

function createPort(groups: ReadonlyMap<string, Group>): Omit<SupervisedHsm, keyof TokenGroups> {
  const tokens = () => [...groups.values()].flatMap((group) => group.tokens)

  function getGroup(name: string): Group {
    const group = groups.get(name)
    if (group === undefined)
      throw new GatewayError('KeyUnavailable', undefined, { detail: `group ${name} is not configured` })
    return group
  }

  /** Sends one call on its way; the promise is the only one it makes. */
  function perform<N extends OperationName, R>(
    groupName: string,
    operation: N,
    rule: OperationRule,
    fields: Request<N>,
    deadline: Deadline,
    pick: (fields: Response<N>, worker: string) => R,
    key?: HsmKey,
  ): Promise<R> {
    return new Promise((resolve, reject) => {
      getGroup(groupName).router.submit({
        operation,
        fields,
        rule,
        pinnedTo: key?.session?.worker,
        shape: () => shapeOf(operation, fields),
        estimate: operations[operation].code * 32 + (key === undefined ? 0 : specCodes[key.spec]),
        submittedAtMs: performance.now(),
        deadlineAtMs: deadline.atMs,
        admit: deadline.admit,
        pick: pick as (fields: never, worker: string) => unknown,
        resolve: resolve as (value: never) => void,
        reject,
        state: 'open',
        firstSentAtMs: 0,
        live: 0,
        deaths: 0,
        retries: 0,
        throttles: 0,
        hedged: false,
        avoid: undefined,
        needsSound: false,
        notBeforeMs: 0,
      })
    })
  }

  const cipher = (
    operation: 'encrypt' | 'decrypt' | 'encryptThenVerify',
    key: HsmKey,
    algorithm: CipherAlgorithm,
    { prefix = nothing, context = nothing, data }: CipherInput,
    deadline: Deadline,
  ): Promise<Buffer> => {
    const fields = { ...wireKey(key), algorithm: algorithmCodes[algorithm], prefix, context, data }
    return perform(key.group, operation, rules.cryptographic, fields, deadline, pickOutput, key)
  }

  /** Every worker of the group drops what it holds of this object; one that doesn't answer is killed. */
  async function forget(key: HsmKey, workers: readonly WorkerProcess[]): Promise<void> {
    const fields = { objectId: key.objectId, label: key.label ?? '' }
    await Promise.all(
      workers.map((worker) =>
        worker.ask('forget', fields, forgetLimitMs).catch(() => worker.kill('did not forget a destroyed object')),
      ),
    )
  }

  const port: Omit<SupervisedHsm, keyof TokenGroups> = {
    groups: () => [...groups.values()].map(stateOf),
    capabilities(group) {
      const known = capabilitiesOf(getGroup(group))
      if (known === undefined)
        throw new GatewayError('KeyUnavailable', undefined, { detail: `${group} is not probed yet` })
      return known
    },
    sign(key, algorithm, input, deadline) {
      const fields = { ...wireKey(key), algorithm: algorithmCodes[algorithm], input }
      return perform(
        key.group,
        'sign',
        rules.cryptographic,
        fields,
        deadline,
        ({ signature }) => asBuffer(signature),
        key,
      )
    },
    verify(key, algorithm, input, signature, deadline) {
      const fields = { ...wireKey(key), algorithm: algorithmCodes[algorithm], input, signature }
      return perform(key.group, 'verify', rules.cryptographic, fields, deadline, ({ valid }) => valid === 1, key)
    },
    encrypt: (key, algorithm, input, deadline) => cipher('encrypt', key, algorithm, input, deadline),
    decrypt: (key, algorithm, input, deadline) => cipher('decrypt', key, algorithm, input, deadline),
    encryptThenVerify: (key, algorithm, input, deadline) =>
      cipher('encryptThenVerify', key, algorithm, input, deadline),
    encryptDigested(key, input, deadline) {
      const pick = ({ output, digest }: Response<'encryptDigested'>) => ({
        output: asBuffer(output),
        digest: asBuffer(digest),
      })
      return perform(
        key.group,
        'encryptDigested',
        rules.cryptographic,
        { ...wireKey(key), ...input },
        deadline,
        pick,
        key,
      )
    },
    mac(key, algorithm, message, deadline) {
      const fields = { ...wireKey(key), algorithm: algorithmCodes[algorithm], message }
      return perform(key.group, 'mac', rules.cryptographic, fields, deadline, ({ mac }) => asBuffer(mac), key)
    },
    derive(key, peerPublicKey, deadline) {
      const fields = { ...wireKey(key), peerPublicKey }
      return perform(key.group, 'derive', rules.cryptographic, fields, deadline, ({ secret }) => asBuffer(secret), key)
    },
    decapsulate(key, ciphertext, deadline) {
      const fields = { ...wireKey(key), ciphertext }
      const pick = ({ secret }: Response<'decapsulate'>) => asBuffer(secret)
      return perform(key.group, 'decapsulate', rules.cryptographic, fields, deadline, pick, key)
    },
    random: (group, count, deadline) => perform(group, 'random', rules.cryptographic, { count }, deadline, pickOutput),
    sealRandom(key, count, { prefix = nothing, context = nothing }, deadline) {
      const fields = { ...wireKey(key), prefix, context, count }
      const pick = ({ plaintext, sealed }: Response<'sealRandom'>) => ({
        plaintext: asBuffer(plaintext),
        sealed: asBuffer(sealed),
      })
      return perform(key.group, 'sealRandom', rules.cryptographic, fields, deadline, pick, key)
    },
    wrap(wrappingKey, target, algorithm, deadline) {
      const fields = { ...wireKey(wrappingKey), ...wireTarget(target), algorithm: algorithmCodes[algorithm] }
      const at = target.session === undefined ? wrappingKey : target
      return perform(at.group, 'wrap', rules.wrap, fields, deadline, ({ wrapped }) => asBuffer(wrapped), at)
    },
    unwrap(unwrappingKey, algorithm, wrapped, intent, deadline) {
      const rule = intent.residence === 'token' ? rules.makeTokenObject : rules.makeSessionObject
      const fields = { ...wireKey(unwrappingKey), algorithm: algorithmCodes[algorithm], wrapped, intent }
      return perform(intent.group, 'unwrap', rule, fields, deadline, pickMade<'unwrap'>(intent), unwrappingKey)
    },
    generate(intent, deadline) {
      const rule = intent.residence === 'token' ? rules.makeTokenObject : rules.makeSessionObject
      return perform(intent.group, 'generate', rule, { intent }, deadline, pickMade<'generate'>(intent))
    },
    generateDataKeyPair(group, spec, deadline) {
      const fields = { spec: specCodes[spec] }
      const pick = ({ publicKey, privateKey }: Response<'generateDataKeyPair'>) => ({
        publicKey: asBuffer(publicKey),
        privateKey: asBuffer(privateKey),
      })
      return perform(group, 'generateDataKeyPair', rules.makeSessionObject, fields, deadline, pick)
    },
    enumerate: (group, deadline) =>
      perform(group, 'enumerate', rules.readToken, {}, deadline, ({ objects }) => objects as readonly ObjectSummary[]),
    attributes(key, deadline) {
      const rule = key.session === undefined ? rules.readToken : rules.sessionObject
      const pick = ({ object }: Response<'attributes'>) => object as ObjectSummary | null
      return perform(key.group, 'attributes', rule, wireKey(key), deadline, pick, key)
    },
    async destroy(key, deadline) {
      const pick = () => undefined
      if (key.session !== undefined)
        return perform(key.group, 'destroy', rules.sessionObject, wireKey(key), deadline, pick, key)
      const group = getGroup(key.group)
      const before = new Set(group.router.workers)
      await forget(key, [...before])
      await perform(key.group, 'destroy', rules.destroyTokenObject, wireKey(key), deadline, pick, key)
      // Workers that became ready meanwhile may have enumerated the object just before it went.
      await forget(
        key,
        group.router.workers.filter((worker) => !before.has(worker)),
      )
    },
    adopt: (request, deadline) =>
      perform(
        request.group,
        'adopt',
        rules.readToken,
        { request },
        deadline,
        ({ object }) => object as AdoptableObject,
      ),
    async retryLogin(name) {
      const token = tokens().find((supervisor) => supervisor.token.name === name)
      if (token === undefined) throw new GatewayError('NotFound', { text: `No token ${name} is configured.` })
      await token.retryLogin()
    },
    setTokens(changed) {
      for (const supervisor of tokens()) {
        const next = changed.find(({ name }) => name === supervisor.token.name)
        if (next !== undefined) supervisor.setToken(next)
      }
    },
    replaceWorkers(reason) {
      for (const token of tokens()) token.replaceAll(reason)
    },
    [Symbol.asyncDispose]: () => closeAll([...groups.values()]),
  }

  return port
}

/** The key that was made, from the answer; a session object is bound to the worker that made it. */
function pickMade<N extends 'generate' | 'unwrap'>({ group, purpose, spec, objectId }: GenerateIntent) {
  return (fields: Response<N>, worker: string): GeneratedKey => {
    const { session: reference, construction, publicKey } = fields as Response<'generate'>
    const key: HsmKey = { group, purpose, spec, construction: constructions[construction] ?? 'none', objectId }
    return {
      key: reference === 0 ? key : { ...key, session: { worker, reference } },
      publicKey: publicKey.length === 0 ? null : Buffer.from(publicKey),
    }
  }
}

function capabilitiesOf({ tokens }: Group): Capabilities | undefined {
  return tokens.map((token) => token.capabilities()).find((known) => known !== undefined)
}

function stateOf(group: Group): GroupState {
  const workers = group.tokens.flatMap((token) => token.workers())
  const capabilities = capabilitiesOf(group)
  return {
    name: group.name,
    ready: capabilities !== undefined && workers.some(({ role, state }) => role === 'serve' && state === 'ready'),
    capabilities,
    tokens: group.tokens.map((token) => ({
      name: token.token.name,
      label: token.label(),
      serial: token.serial(),
      trouble: token.trouble(),
      pinRefused: token.pinRefused(),
    })),
    workers,
  }
}

// ---- frames

const asBuffer = (bytes: Uint8Array): Buffer => bytes as Buffer // the codec's bytes are Buffers
const pickOutput = ({ output }: { readonly output: Uint8Array }): Buffer => asBuffer(output)

function wireKey({ purpose, spec, construction, session, objectId, label = '' }: HsmKey) {
  return {
    purpose: purposeCodes[purpose],
    spec: specCodes[spec],
    construction: constructionCodes[construction],
    session: session?.reference ?? 0,
    objectId,
    label,
  }
}

function wireTarget(key: HsmKey) {
  const { purpose, spec, construction, session, objectId, label } = wireKey(key)
  return {
    targetPurpose: purpose,
    targetSpec: spec,
    targetConstruction: construction,
    targetSession: session,
    targetObjectId: objectId,
    targetLabel: label,
  }
}

/** Key, mechanism and input shape: operation, object, algorithm, and the power of two of the input's size. */
function shapeOf(operation: OperationName, fields: Readonly<Record<string, unknown>>): string {
  let bytes = 0
  for (const [name, value] of Object.entries(fields))
    if (value instanceof Uint8Array && name !== 'objectId') bytes += value.length
  const { objectId, label, algorithm } = fields as { objectId?: Uint8Array; label?: string; algorithm?: number }
  const id = objectId === undefined ? '' : Buffer.from(objectId).toString('hex')
  return [operation, id, label ?? '', algorithm ?? '', Math.ceil(Math.log2(bytes + 1))].join(' ')
}
