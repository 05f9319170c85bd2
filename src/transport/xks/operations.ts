/**
 * The four operations of the XKS proxy API as rows of the pipeline. Order of refusals: who calls, what is asked, rehearsed faults, what is
 * blocked, which key, whose principal, and the module last (the order that AWS's test client expects).
 */
import type { KeyEntry } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { DirectKeys, KeyService } from '../../keys/keys.ts'
import type { Operation, Prepared, Scope } from '../../pipeline.ts'
import { composeContext, decodeMetadata, digestPrefixOf, encodeMetadata } from './additional-data.ts'
import type { Faults } from './faults.ts'
import type { Health } from './health.ts'
import {
  type DecryptRequest,
  type EncryptRequest,
  parseBody,
  parseDecrypt,
  parseEncrypt,
  parseRequestMetadata,
  type RequestMetadata,
} from './messages.ts'
import type { Store, StoreKey } from './stores.ts'
import type { Api } from './uri-path.ts'
import { XksError } from './xks-error.ts'

/** What the door hands to an operation; nothing in the body is trusted yet. */
export interface RawRequest {
  readonly store: Store
  readonly externalKeyId: string
  readonly body: Buffer
  /** Filled in as soon as it is parsed: what log lines of the call carry. */
  readonly trace: Record<string, string>
}

interface Input<Message> {
  readonly store: Store
  readonly externalKeyId: string
  readonly metadata: RequestMetadata
  readonly message: Message
}

interface Target {
  readonly arn: string
  readonly account: string
  readonly storeKey: StoreKey
  readonly entry: KeyEntry
}

export type XksOutput = Readonly<Record<string, unknown>>
export type XksOperation = Operation<Input<unknown>, Target | null, XksOutput>

export interface OperationParts {
  readonly direct: DirectKeys
  readonly keys: Pick<KeyService, 'keyArn'>
  readonly health: Health
  readonly faults: Faults
  /** The store as it is at this moment, which may have been blocked since the call came. */
  readonly current: (name: string) => Store | undefined
  readonly timeoutMs: number
}

/** What GetKeyMetadata says of an object's usages (XKS proxy API, "GetKeyMetadata"). */
const keyUsages: Readonly<Record<string, string>> = {
  encrypt: 'ENCRYPT',
  decrypt: 'DECRYPT',
  sign: 'SIGN',
  verify: 'VERIFY',
  wrap: 'WRAP',
  unwrap: 'UNWRAP',
  derive: 'DERIVE',
}

export function createOperations(parts: OperationParts): Readonly<Record<Api, XksOperation>> {
  const { direct, keys, health, faults } = parts

  function requireOpen(store: string, externalKeyId: string | undefined): void {
    const now = parts.current(store)
    if (now === undefined || now.isUncertain) throw new GatewayError('CatalogUnavailable')
    if (now.isBlocked) throw new XksError('StoreBlocked', 'The key store is blocked.')
    if (externalKeyId === undefined) return
    if (now.keys.get(externalKeyId)?.isBlocked === true) throw new XksError('StoreBlocked', 'The key is blocked.')
  }

  /** Quota, and refusals rehearsed. */
  function requireRoom(store: Store): void {
    if (store.bucket?.take() === false) throw new GatewayError('Throttled')
    const kind = faults.find(store.name)?.kind
    if (kind === '429') throw new GatewayError('Throttled')
    if (kind === 'deny') {
      const principal = `the callers of ${store.name}`
      throw new GatewayError('AccessDenied', { principal, action: 'xks:*', reason: 'explicit-deny-identity' })
    }
  }

  async function findTarget({ store, externalKeyId }: Input<unknown>): Promise<Target> {
    const storeKey = store.keys.get(externalKeyId)
    if (storeKey === undefined) throw notFound()
    const found = direct.find(storeKey.key)
    const entry = found instanceof Promise ? await found : found
    if (entry === undefined) throw notFound()
    const { account } = storeKey.key
    return { arn: keys.keyArn(storeKey.key), account, storeKey, entry }
  }

  /** What every operation on a key does around its own. */
  function onKey<Message>(row: {
    readonly name: string
    readonly parse: (raw: RawRequest) => { readonly metadata: RequestMetadata; readonly message: Message }
    readonly perform: (input: Input<Message>, target: Target, scope: Scope) => Promise<XksOutput>
    readonly isUse: boolean
  }): Operation<Input<Message>, Target, XksOutput> {
    return {
      name: row.name,
      readOnly: true,
      timeoutMs: parts.timeoutMs,
      parse: (raw) => toInput(raw as RawRequest, row.parse),
      async prepare(input, scope): Promise<Prepared<Target>> {
        requireRoom(input.store)
        requireOpen(input.store.name, input.externalKeyId)
        const target = await findTarget(input)
        const context = new Map([['xks:awsprincipalarn', input.metadata.awsPrincipalArn ?? '']])
        const { account: resourceAccount } = scope
        const action = `xks:${row.name}`
        const demand = { action, resource: target.arn, resourceAccount, resourcePolicy: null, context }
        return { resources: target, demands: [demand] }
      },
      perform(input, target, scope) {
        const { deadline } = scope
        const admit = () => {
          deadline.admit?.()
          requireOpen(input.store.name, input.externalKeyId)
        }
        return row.perform(input, target, { ...scope, deadline: { ...deadline, admit } })
      },
      ...(row.isUse ? { uses: ({ entry }: Target) => [entry.key] } : {}),
      record: (input, target) => ({
        requestParameters: record(input),
        responseElements: null,
        resources: target === undefined ? [] : [{ account: target.account, type: 'AWS::KMS::Key', arn: target.arn }],
      }),
    }
  }

  const getHealthStatus: Operation<Input<null>, null, XksOutput> = {
    name: 'GetHealthStatus',
    readOnly: true,
    timeoutMs: parts.timeoutMs,
    parse: (raw) =>
      toInput(raw as RawRequest, ({ body }) => ({
        metadata: parseRequestMetadata(parseBody(body), 'health'),
        message: null,
      })),
    // AWS KMS asks before it lets anybody in: no principal decides here
    async prepare({ store }) {
      requireRoom(store)
      requireOpen(store.name, undefined)
      return { resources: null, demands: [] }
    },
    perform: ({ store }) => health.describe(store),
    record: (input) => ({ requestParameters: record(input), responseElements: null, resources: [] }),
  }

  const getKeyMetadata = onKey<null>({
    name: 'GetKeyMetadata',
    isUse: false,
    parse: ({ body }) => ({ metadata: parseRequestMetadata(parseBody(body), 'metadata'), message: null }),
    async perform(_input, { entry }) {
      const { usages, isEnabled } = direct.describe(entry)
      return {
        keySpec: 'AES_256',
        keyUsage: usages.map((usage) => keyUsages[usage]).filter((usage) => usage !== undefined),
        keyStatus: isEnabled ? 'ENABLED' : 'DISABLED',
      }
    },
  })

  const encrypt = onKey<EncryptRequest>({
    name: 'Encrypt',
    isUse: true,
    parse({ body }) {
      const message = parseEncrypt(parseBody(body))
      return { metadata: message.requestMetadata, message }
    },
    async perform({ store, message }, { entry }, { deadline }) {
      const { plaintext, aad, wantsIntegrityValue } = message
      try {
        const mode = store.aadMode
        const metadata = encodeMetadata({ mode, material: direct.describe(entry).currentMaterial })
        const context = composeContext(mode, aad, metadata)
        const digestPrefix = wantsIntegrityValue ? { digestPrefix: digestPrefixOf(aad, metadata) } : {}
        const sealed = await direct.encrypt(entry, { plaintext, context, ...digestPrefix }, deadline)
        if (sealed.digest !== undefined && faults.find(store.name)?.kind === 'bad-cdiv') {
          sealed.digest[0] = (sealed.digest[0] as number) ^ 1
        }
        return {
          ciphertext: sealed.ciphertext.toString('base64'),
          initializationVector: sealed.iv.toString('base64'),
          authenticationTag: sealed.tag.toString('base64'),
          ciphertextMetadata: metadata.toString('base64'),
          ...(sealed.digest && { ciphertextDataIntegrityValue: sealed.digest.toString('base64') }),
        }
      } finally {
        plaintext.fill(0)
      }
    },
  })

  const decrypt = onKey<DecryptRequest>({
    name: 'Decrypt',
    isUse: true,
    parse({ body }) {
      const message = parseDecrypt(parseBody(body))
      return { metadata: message.requestMetadata, message }
    },
    async perform({ store, message }, { entry }, { deadline }) {
      const { ciphertext, iv, tag, metadata, aad } = message
      const own = decodeMetadata(metadata)
      const context = composeContext(own?.mode ?? store.aadMode, aad, metadata)
      const material = own === undefined ? {} : { material: own.material }
      const plaintext = await direct.decrypt(entry, { ciphertext, iv, tag, context, ...material }, deadline)
      try {
        return { plaintext: plaintext.toString('base64') }
      } finally {
        plaintext.fill(0)
      }
    },
  })

  return { health: getHealthStatus, metadata: getKeyMetadata, encrypt, decrypt } as unknown as Readonly<
    Record<Api, XksOperation>
  >
}

function toInput<Message>(
  raw: RawRequest,
  parse: (raw: RawRequest) => { readonly metadata: RequestMetadata; readonly message: Message },
): Input<Message> {
  const { store, externalKeyId } = raw
  const { metadata, message } = parse(raw)
  Object.assign(raw.trace, { store: store.name, ...metadata })
  return { store, externalKeyId, metadata, message }
}

/** Never plaintext, ciphertext or additional data. */
function record({ store, externalKeyId, metadata }: Input<unknown>): Readonly<Record<string, unknown>> {
  return { store: store.name, ...(externalKeyId === '' ? {} : { externalKeyId }), ...metadata }
}

function notFound(): GatewayError {
  return new GatewayError('KeyNotFound', { text: 'There is no such key in the key store.' })
}
