/**
 * The composition root: a configuration becomes a running gateway. Everything is built here once, in the order of its dependencies, and
 * closed in the opposite order; nothing below knows how the rest is made.
 *
 * Start: lock, catalog, journal, HSM workers, row seal, settlement of what a crash left, system keys, credentials, doors. The doors
 * open last, so that whoever can connect can be served.
 */
import { closeSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { type Administration, createAdministration } from './administration.ts'
import type { CheckpointSigner } from './audit/audit.ts'
import { openJournal } from './audit/journal.ts'
import { createSigV4Verifier } from './authenticate/authenticate.ts'
import { createCredentialStore } from './authenticate/credentials.ts'
import { createSessionTokens } from './authenticate/session-tokens.ts'
import { createSessions, isSessionKeyId } from './authenticate/sessions.ts'
import { createTlsBindingStore } from './authenticate/tls-bindings.ts'
import { createAuthorizer, maxResourceAliases } from './authorize/authorize.ts'
import { deadlineIn } from './call.ts'
import { openCatalog } from './catalog/open.ts'
import { type Config, isLoopback, type TokenConfig } from './config/config.ts'
import { followCredentials } from './credential-changes.ts'
import { describePause, startDeletions } from './deletions.ts'
import { isCode, toGatewayError } from './error.ts'
import { createGrantFinder } from './grants.ts'
import { type Predecessor, type Successor, startSuccessor } from './hand-over.ts'
import { openHsm, type SupervisedHsm } from './hsm/hsm.ts'
import { loadAddon } from './hsm/worker/addon.ts'
import { createIdentityPolicies, principalExists } from './identities.ts'
import { startKeyRounds } from './key-rounds.ts'
import { openKeyStores } from './key-stores.ts'
import { destroyDueKeys } from './keys/deletion.ts'
import { openDestructionGate } from './keys/destruction-gate.ts'
import { createDirectKeys } from './keys/direct-keys.ts'
import { runDueKeys } from './keys/due-keys.ts'
import { createGrantTokens } from './keys/grant-tokens.ts'
import { createKeyTurns } from './keys/key-turns.ts'
import type { UnknownObject } from './keys/keys.ts'
import { openLastUsage } from './keys/last-usage.ts'
import { openProofKey } from './keys/proof-key.ts'
import { findUnknownObjects } from './keys/reconcile.ts'
import { createKeyService } from './keys/service.ts'
import { settleBackingKeys } from './keys/settlement.ts'
import { openCatalogSeal, openSystemKeys } from './keys/system-keys.ts'
import { createTlsSigner } from './keys/tls-signer.ts'
import { openTokenSecret } from './keys/token-secret.ts'
import { type ClockSource, machineClock } from './keys/trusted-clock.ts'
import { createUseCounts } from './keys/use-counts.ts'
import { createObserver, type Observer } from './observe/observe.ts'
import { createPipeline } from './pipeline.ts'
import { type Problem, ProblemsError } from './problem.ts'
import { createRelatedEvents } from './related-events.ts'
import { isLimited, type Reloaded, readTlsFiles, reload } from './reload.ts'
import { createAliasFinder } from './resource-aliases.ts'
import { createSimulation } from './simulation.ts'
import { takeStartTurn } from './start-turn.ts'
import { openTls } from './tls.ts'
import { takeInheritedListeners } from './transport/inherited-listeners.ts'
import { keepListeners } from './transport/kept-listeners.ts'
import { demandOnKey } from './transport/kms/conditions.ts'
import { createKmsDoor, createRequestQuotas, describeKmsError, type KmsDoor } from './transport/kms/kms.ts'
import { describeOffloadError } from './transport/offload/offload.ts'
import { openOffload } from './transport/offload/open.ts'
import { createOperatorCommands } from './transport/operator/commands.ts'
import { createOperatorDoor, describeOperatorError } from './transport/operator/operator.ts'
import { createStsProtocol, describeStsError } from './transport/sts/sts.ts'
import { createXksFaults, describeXksError, diagnoseStore, openXksStores } from './transport/xks/xks.ts'
import { type OpenedXksDoor, openXksDoor } from './xks-door.ts'

const systemDeadlineMs = 60_000
/** Sessions of one serve worker when neither the configuration nor the token says: SoftHSM does not gain from more than cores. */
const defaultSessions = { softhsm: 2, other: 16 }

/** Calls that nobody makes come from nowhere. */
const nowhere = { ip: '', userAgent: '' }

export interface Gateway extends AsyncDisposable {
  readonly endpoints: {
    readonly kms?: string
    readonly xks?: string
    readonly operator?: string
    readonly operatorSocket: string
    /** Sockets, and `tls://` for relays. */
    readonly offload: readonly string[]
  }
  readonly administration: Administration
  readonly observer: Observer
  /** Objects of the tokens that no catalog row names; they are never touched. Known some time after the start. */
  readonly unknownObjects: Promise<readonly UnknownObject[]>
  /** What is due now (deletion, rotation, expiry) is done, last uses are written; resolves when it is. */
  settle(): Promise<void>
  /** Uses a new configuration as far as a running gateway can (reload.ts). */
  reload(next: Config): Reloaded
  /** Starts this program anew in place of this process. When it resolves the new one is warm: close this gateway, then let go. */
  startSuccessor(): Promise<Successor>
  /** Sends a state (sd_notify(3)) to the service manager, if one asked for it. */
  tellServiceManager(state: string): void
}

export interface GatewayOverrides {
  /** Where log lines go instead of standard error. */
  readonly log?: { write(line: string): void }
  /** Clocks of another machine, for destruction and the dates of keys. */
  readonly clock?: ClockSource
  /** The process whose place this gateway takes. */
  readonly predecessor?: Predecessor
}

/** @throws ProblemsError with cause and remedy when the gateway cannot start. */
export async function openGateway(
  config: Config,
  { log, clock = machineClock, predecessor }: GatewayOverrides = {},
): Promise<Gateway> {
  const startedMs = performance.now()
  await using stack = new AsyncDisposableStack()
  const addon = loadAddon()
  addon.hardenProcess({ dieWithParent: false })
  const observer = createObserver({ level: config.log.level, ...(log === undefined ? {} : { stream: log }) })
  const inherited = keepListeners(predecessor?.listeners ?? takeInheritedListeners(), config, predecessor !== undefined)
  // Workers take the longest; the state is the predecessor's until they are warm.
  const early = predecessor && stack.use(await openTokens(config, observer))
  if (early !== undefined) requireReady(early, config)
  await predecessor?.takeOver()
  const lock = takeLock(config, addon.lockFile)
  stack.defer(() => closeSync(lock))
  const partition = config.partition
  const defaultAccount = config.accounts[0] as string
  const now = Date.now

  const catalog = stack.use(
    await openCatalog({
      ...config.catalog,
      partition,
      now: clock.wallMs,
      report: (error) => observer.unexpected('catalog', error),
      restored: (awayMs) => observer.note('warn', 'the catalog is back', { awayMs: Math.round(awayMs) }),
    }).catch((cause) => {
      const { detail } = toGatewayError(cause)
      const remedy = 'put it right, then start again; the catalog was not changed'
      const at = config.catalog.kind === 'sqlite' ? config.catalog.file : 'catalog.postgresql'
      throw new ProblemsError([{ at, cause: detail ?? 'the catalog cannot be opened', remedy }], { cause })
    }),
  )
  const turn = stack.use(await takeStartTurn(catalog))
  // Before this start writes to it.
  const foundRevision = await catalog.revision()
  const hsm = early ?? stack.use(await openTokens(config, observer))
  requireReady(hsm, config)
  const journal = stack.use(await openJournal({ ...config.audit, lockFile: addon.lockFile, events: observer.journal }))

  const group = config.defaultGroup
  const creation = { catalog, hsm, now, group }
  await openCatalogSeal(creation).catch((cause) => {
    if (!isCode(cause, 'KeyUnavailable')) throw cause
    throw new ProblemsError([sealProblem(cause.detail, config)], { cause })
  })
  const settle = async (isConcerned: (group: string | undefined) => boolean) => {
    for (const settled of await settleBackingKeys(creation, () => deadlineIn(systemDeadlineMs), isConcerned))
      observer.note('warn', 'creation that was cut off', { ...settled })
  }
  // Those in custom key stores are settled when their store is connected.
  await settle((name) => name === undefined || Object.hasOwn(config.groups, name))
  const systemKeys = await openSystemKeys(creation)
  const signer: CheckpointSigner = {
    catalogRevision: () => catalog.revision(),
    async sign(statement) {
      return { ...(await systemKeys.signCheckpoint(statement)), algorithm: 'ECDSA_SHA_256' }
    },
  }
  journal.useSigner(signer)

  const tokenSecret = stack.use(
    await openTokenSecret({ catalog, sealer: systemKeys, replaced: () => reportTokens(observer) }),
  )
  const forget = (accessKeyId: string) => {
    for (const each of [verifier, stsVerifier]) each.forget(accessKeyId)
  }
  await turn[Symbol.asyncDispose]()
  const credentials = stack.use(createCredentialStore(forget))
  const findRole = (account: string, name: string) => catalog.findPrincipal(account, 'role', name)
  const sessions = stack.use(
    createSessions({
      tokens: createSessionTokens(tokenSecret.derive('session-token')),
      findRole,
      partition,
      now,
      dropped: forget,
    }),
  )
  catalog.onChange(({ table, name }) => {
    const [account = '', kind, role = ''] = name.split('/')
    if (table === '*') sessions.forgetAll()
    else if (table === 'principal' && kind === 'role') sessions.forgetRole(account, role)
  })
  const verification = {
    regions: new Set(config.regions),
    now,
    credentials: {
      find: (accessKeyId: string, sessionToken?: string) =>
        isSessionKeyId(accessKeyId) ? sessions.find(accessKeyId, sessionToken) : follower.find(accessKeyId),
    },
  }
  const verifier = stack.use(createSigV4Verifier({ ...verification, service: 'kms' }))
  const stsVerifier = stack.use(createSigV4Verifier({ ...verification, service: 'sts' }))
  const administration = createAdministration({
    catalog,
    sealer: systemKeys,
    credentials,
    partition,
    accounts: config.accounts,
    now,
  })
  const follower = stack.use(
    followCredentials({
      catalog,
      credentials,
      administration,
      failed: (cause) => observer.unexpected('access keys', cause),
    }),
  )
  const { loaded, failed } = await administration.loadCredentials()
  observer.note('info', 'access keys loaded', { loaded })
  for (const accessKeyId of failed) observer.note('error', 'an access key could not be unsealed', { accessKeyId })

  const identityPolicies = createIdentityPolicies(catalog)
  const authorizer = createAuthorizer({
    identityPolicies: (principal) =>
      principal.type === 'key-store' ? xks.stores.policiesOf(principal) : identityPolicies(principal),
    grants: createGrantFinder(catalog),
    resourceAliases: createAliasFinder(catalog, maxResourceAliases + 1),
    nowMs: now,
  })
  const pipeline = createPipeline({
    authorizer,
    journal,
    observer: observer.calls,
    memory: catalog,
    used: (key, use) => lastUsage.note({ account: key.account, region: key.region, keyId: key.keyId, ...use }),
    describeError(door, error) {
      if (door === 'operator') return describeOperatorError(error)
      if (door === 'xks') return describeXksError(error)
      if (door === 'offload') return describeOffloadError(error)
      return door === 'sts' ? describeStsError(error) : describeKmsError(error)
    },
  })
  const grantTokens = createGrantTokens(tokenSecret.derive('grant-token'))
  const signed = journal.lastCheckpoint?.catalogRevision
  const gate = await openDestructionGate(catalog, { catalog: foundRevision, signed }, clock)
  await gate.check()
  let current = config
  const quotas = createRequestQuotas({ ...config.quotas, enabled: isLimited(config) })
  const lastUsage = stack.use(openLastUsage({ catalog, failed: (cause) => observer.unexpected('last uses', cause) }))
  const turns = createKeyTurns()
  const bindings = createTlsBindingStore()
  const stores = stack.use(
    await openKeyStores({
      config,
      catalog,
      hsm,
      sealer: systemKeys,
      observer,
      now,
      sessionsOf,
      settle: (opened) => settle((name) => name === opened),
    }),
  )
  const keys = createKeyService({
    stores: stores.keyStores,
    catalog,
    hsm,
    partition,
    defaultGroup: group,
    now: gate.latest,
    grantTokens,
    turns,
    tokenSealer: systemKeys,
    allowImportThroughMemory: config.allowImportThroughMemory,
    lastUsage,
    wake: () => void rounds.run(),
    get keysPerRegion() {
      return isLimited(current) ? current.quotas.keysPerRegion : Number.POSITIVE_INFINITY
    },
    related: createRelatedEvents(journal, (name) => keys.keyArn(name)),
    mayTlsKeySign: (key) => bindings.permits(key, 'any'),
  })
  const { tls, relays } = await openTls({
    catalog,
    keys,
    store: bindings,
    relayAuthority: systemKeys.relayAuthority,
    accounts: config.accounts,
    partition,
    now,
    observer,
  })
  stack.use(tls)
  stack.use(relays)
  const deletions = stack.use(
    startDeletions({
      async destroy(events) {
        await keys.settleRelatedKeys().catch((cause) => observer.unexpected('multi-Region keys', cause))
        return destroyDueKeys({ catalog, hsm, gate, deadline: () => deadlineIn(systemDeadlineMs), ...events })
      },
      keys,
      observer,
      journal,
      gate,
    }),
  )

  const rounds = stack.use(
    startKeyRounds({
      look: (events) => runDueKeys({ catalog, hsm, now: gate.latest, gate, turns, events }),
      keys,
      journal,
      observer,
    }),
  )

  const uses = stack.use(
    createUseCounts({
      catalog,
      warn: (keyId, reserved) => observer.note('warn', 'half of the messages of a key are spent', { keyId, reserved }),
      failed: (cause) => observer.unexpected('use counts', cause),
    }),
  )
  const direct = createDirectKeys({ catalog, hsm, partition, now: gate.latest, uses })
  const xks = await openXksStores({
    catalog,
    sealer: systemKeys,
    partition,
    account: defaultAccount,
    keys,
    direct,
    now,
    failed: (cause, store) => observer.unexpected(`external key store ${store}`, cause),
  })
  stack.use(xks.stores)
  const faults = createXksFaults()
  let xksEndpoint: string | undefined

  const operator = stack.use(
    createOperatorDoor({
      pipeline,
      observer,
      hsm,
      journal,
      ...(catalog.isShared ? { catalog } : {}),
      account: defaultAccount,
      region: config.regions[0] as string,
      partition,
      commands: createOperatorCommands({
        administration,
        catalog,
        keys,
        hsm,
        journal,
        tls,
        relays,
        simulation: createSimulation({
          authorizer,
          catalog,
          keys,
          partition,
          demandOnKey: (action, key, principal, region) =>
            demandOnKey(action, key, { principal, region, source: nowhere }),
        }),
        destruction: { ...gate, describe: describePause, run: deletions.run },
        xks: {
          administration: xks.administration,
          diagnose: (store, endpoint = xksEndpoint ?? '', ca) => diagnoseStore(xks.stores, store, endpoint, ca),
          ...(config.development ? { faults } : {}),
        },
        partition,
        defaultAccount,
        defaultRegion: config.regions[0] as string,
      }),
      peerCredentials: addon.peerCredentials,
    }),
  )
  observer.watch({ groups: () => hsm.groups(), journal, pauses: gate.pauses })
  const listeners = new Map<string, number>()
  const operatorEndpoint = await operator.listen(config.listen.operator, inherited)
  for (const [name, fd] of operator.listeners()) listeners.set(name, fd)
  observer.doorOpened('operator', config.listen.operator.socket)
  const { http } = config.listen.operator
  if (operatorEndpoint !== undefined && http) noteDoor(observer, 'operator', operatorEndpoint, http.address)

  let kms: string | undefined
  let kmsDoor: KmsDoor | undefined
  const address = config.listen.kms
  if (address !== null) {
    const tls = address.tls && readTlsFiles(address.tls)
    const door = stack.use(
      createKmsDoor({
        keys,
        stores,
        regions: new Set(config.regions),
        quotas,
        authorizer,
        principalExists: (name) => principalExists(catalog, config, name),
        pipeline,
        verifier,
        services: new Map([
          ['sts', createStsProtocol({ pipeline, verifier: stsVerifier, partition, sessions, findRole, quotas })],
        ]),
        partition,
        trustedProxies: config.trustedProxies,
        ...(tls === undefined ? {} : { tls }),
        onRefused: (name) => observer.note('debug', 'request refused', { name }),
      }),
    )
    kmsDoor = door
    const fd = inherited.get('kms')
    const place = fd === undefined ? { host: address.address, port: address.port } : { fd }
    const bound = await door.listen(place).catch((cause) => {
      throw listenProblem('listen.kms', `${address.address}:${address.port}`, cause)
    })
    listeners.set('kms', door.descriptor())
    kms = `${tls === undefined ? 'http' : 'https'}://${hostOf(bound.address)}:${bound.port}`
    noteDoor(observer, 'kms', kms, address.address)
  }

  let xksDoor: OpenedXksDoor | undefined
  const xksAddress = config.listen.xks
  // the endpoint is known to `doctor` as soon as the door listens
  if (xksAddress !== null) {
    const proofKey = (name: string) => openProofKey({ catalog, hsm, now, group: name })
    await proofKey(group)
    const parts = { config, pipeline, stores: xks.stores, faults, keys, direct, hsm, observer }
    const door = stack.use(openXksDoor({ ...parts, proofKey }))
    xksDoor = door
    const fd = inherited.get('xks')
    const place = fd === undefined ? { host: xksAddress.address, port: xksAddress.port } : { fd }
    const bound = await door.listen(place).catch((cause) => {
      throw listenProblem('listen.xks', `${xksAddress.address}:${xksAddress.port}`, cause)
    })
    xksEndpoint = `${xksAddress.tls === undefined ? 'http' : 'https'}://${hostOf(bound.address)}:${bound.port}`
    noteDoor(observer, 'xks', xksEndpoint, xksAddress.address)
    listeners.set('xks', door.descriptor())
    observer.watch({ xks: door.state })
  }

  const offload = stack.use(
    await openOffload({
      config,
      partition,
      pipeline,
      bindings,
      signer: createTlsSigner({ catalog, hsm, partition, now: gate.latest }),
      relays,
      events: observer.offload,
      peerCredentials: addon.peerCredentials,
      inherited,
    }),
  )
  for (const [name, fd] of offload.listeners) listeners.set(name, fd)
  for (const endpoint of offload.endpoints) observer.doorOpened('offload', endpoint)
  observer.watch({ relays: () => ({ approved: relays.list(), certificateEndsAt: offload.certificateEndsAt }) })

  const unknownObjects = Promise.all(
    Object.keys(config.groups).map((name) => findUnknownObjects({ catalog, hsm }, name)),
  ).then((found) => found.flat())
  unknownObjects.then(
    (objects) => reportUnknown(observer, objects),
    (cause) => observer.unexpected('reconcile', cause),
  )

  observer.gatewayStarted(performance.now() - startedMs)
  const owned = stack.move()
  return {
    endpoints: {
      ...(kms === undefined ? {} : { kms }),
      ...(xksEndpoint === undefined ? {} : { xks: xksEndpoint }),
      ...(operatorEndpoint === undefined ? {} : { operator: operatorEndpoint }),
      operatorSocket: config.listen.operator.socket,
      offload: offload.endpoints,
    },
    administration,
    observer,
    unknownObjects,
    async settle() {
      await Promise.all([deletions.run(), rounds.run(), lastUsage.flush()])
    },
    reload(next) {
      const reloaded = reload(current, next, {
        quotas,
        setLogLevel: observer.setLevel,
        setTrustedProxies: (entries) => kmsDoor?.setTrustedProxies(entries),
        listeners: {
          ...(kmsDoor === undefined ? {} : { kms: kmsDoor }),
          ...(xksDoor === undefined ? {} : { xks: xksDoor }),
          relay: offload,
        },
        setTokens: (tokens) => hsm.setTokens(toHsmTokens(tokens)),
        replaceWorkers: () => hsm.replaceWorkers('reload'),
      })
      current = reloaded.config
      observer.reloaded()
      return reloaded
    },
    startSuccessor: () => startSuccessor(listeners),
    tellServiceManager(state) {
      const socket = process.env.NOTIFY_SOCKET
      if (!socket) return
      try {
        addon.notifyServiceManager(socket, state)
      } catch (cause) {
        observer.unexpected('service manager', cause)
      }
    },
    async [Symbol.asyncDispose]() {
      observer.gatewayStopping('it was told to')
      await unknownObjects.catch(() => {})
      await owned.disposeAsync()
      observer.gatewayStopped()
      observer.flush()
    },
  }
}

function reportUnknown(observer: Observer, objects: readonly UnknownObject[]): void {
  if (objects.length === 0) return
  const ours = objects.filter((object) => object.ours).length
  observer.problem({
    at: 'tokens',
    cause: `${objects.length} objects are in no catalog row, ${ours} of them made by hsmgate; none was touched`,
    remedy: 'hsmgate key reconcile lists them; restore the catalog that knows them, or adopt them',
  })
}

function reportTokens(observer: Observer): void {
  observer.problem({
    at: 'catalog',
    cause: 'the secret of grant and session tokens was not sealed by this gateway; a new one was made',
    remedy: 'sessions ended and grant tokens given out before are unknown; restore the catalog if that is not expected',
  })
}

function takeLock(config: Config, lockFile: (file: string) => number): number {
  for (const directory of [config.stateDirectory, config.runDirectory])
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  const lock = lockFile(path.join(config.stateDirectory, 'gateway.lock'))
  if (lock >= 0) return lock
  const cause = 'another gateway runs on this state'
  const remedy = 'stop it first, or give this one a state folder of its own'
  throw new ProblemsError([{ at: config.stateDirectory, cause, remedy }])
}

function sessionsOf({ sessions, profile }: Pick<TokenConfig, 'sessions' | 'profile'>): number {
  return sessions ?? (profile === 'softhsm' ? defaultSessions.softhsm : defaultSessions.other)
}

/** Tokens of custom key stores are opened when their store is connected. */
function toHsmTokens(tokens: Config['tokens']) {
  return Object.entries(tokens).flatMap(([name, { pinFile, ...token }]) =>
    pinFile === undefined ? [] : [{ ...token, name, pinFile, sessions: sessionsOf(token) }],
  )
}

function openTokens(config: Config, observer: Observer): Promise<SupervisedHsm> {
  const groups = Object.entries(config.groups).map(([name, { tokens: members }]) => ({ name, tokens: members }))
  return openHsm({
    tokens: toHsmTokens(config.tokens),
    groups,
    stateDirectory: config.stateDirectory,
    observe: observer.hsm,
    allowImportThroughMemory: config.allowImportThroughMemory,
  })
}

/** The default group holds the system keys: without it nothing can be verified or unsealed. */
function requireReady(hsm: SupervisedHsm, config: Config): void {
  const group = hsm.groups().find(({ name }) => name === config.defaultGroup)
  if (group?.ready) return
  const problems = (group?.tokens ?? []).map(({ name, trouble }) => {
    // the text ends with what helps, if anything is known to; a name of the module's answer may follow that
    const [, cause = trouble, remedy] = /^(.*): ([^:()]+(?: \(CKR_\w+\))?)$/.exec(trouble ?? '') ?? []
    return {
      at: `tokens.${name}`,
      cause: cause || 'the token does not answer',
      remedy: remedy ?? 'run hsmgate doctor for this token',
    }
  })
  throw new ProblemsError(problems)
}

/** Without the seal no row can be trusted. */
function sealProblem(detail: string | undefined, { defaultGroup }: Config): Problem {
  return {
    at: `groups.${defaultGroup}`,
    cause: detail ?? 'the key that seals the catalog cannot be used',
    remedy:
      'name the token or the catalog that belongs to the other; gateways on one catalog share one token or its replicas',
  }
}

/** Plain HTTP beyond loopback is there only because the configuration insists; the log says so at every start. */
function noteDoor(observer: Observer, door: string, url: string, address: string): void {
  observer.doorOpened(door, url)
  if (url.startsWith('http:') && !isLoopback(address)) observer.insecureListener(door, url)
}

function listenProblem(at: string, address: string, cause: unknown): ProblemsError {
  const { code } = cause as NodeJS.ErrnoException
  const text =
    code === 'EADDRINUSE' ? `${address} is taken by another process` : `cannot listen on ${address} (${code})`
  const remedy = code === 'EADDRINUSE' ? `stop that process, or set ${at}.port` : `correct ${at}`
  return new ProblemsError([{ at, cause: text, remedy }], { cause })
}

function hostOf(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}
