/**
 * What an operator does to stores: makes them, changes credentials, adds and blocks keys. Every change is one write of the catalog and is in
 * force for the next operation when its promise resolves. Secrets are made here or handed in, shown once, and kept sealed.
 */
import { randomBytes, randomInt } from 'node:crypto'
import type { Catalog } from '../../catalog/catalog.ts'
import { GatewayError, isCode } from '../../error.ts'
import { createTurns } from '../../in-turn.ts'
import type { DirectKeys, KeyService, Locale } from '../../keys/keys.ts'
import type { AadMode } from './additional-data.ts'
import {
  type KeyDocument,
  keyCollection,
  nameOfKeyDocument,
  parseKey,
  parseStore,
  type StoreDocument,
  type StoredCredential,
  sealContext,
  storeCollection,
} from './store-documents.ts'
import type { Stores } from './stores.ts'
import { externalKeyIdForm, isPrefix, prefixCharsMax, uriPathOf } from './uri-path.ts'
import { invalid } from './xks-error.ts'

export interface NewStore {
  readonly name: string
  readonly prefix: string
  readonly region: string
  readonly aadMode: AadMode
  readonly requestsPerSecond: number | null
  readonly principals: readonly string[]
  readonly clientNames: readonly string[]
  /** Of a store that moves here; default: made anew. */
  readonly credential?: { readonly accessKeyId: string; readonly secretAccessKey: string }
}

export interface StoreDescription extends Omit<StoreDocument, 'credentials'> {
  readonly name: string
  readonly uriPath: string
  readonly credentials: readonly { readonly accessKeyId: string; readonly createdAt: number }[]
  readonly keys: number
}

export interface NewCredential {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

export interface StoreKeyDescription {
  readonly store: string
  readonly externalKeyId: string
  readonly arn: string
  readonly isBlocked: boolean
  /** What the object permits; undefined when the key is gone. */
  readonly usages?: readonly string[]
}

export interface StoreAdministration {
  /** @throws GatewayError `ValidationFailed`, `AlreadyExists` */
  create(request: NewStore): Promise<StoreDescription & { readonly credential: NewCredential }>
  list(): Promise<readonly StoreDescription[]>
  describe(name: string): Promise<StoreDescription>
  /** Removes a store without keys. */
  remove(name: string): Promise<void>
  /** Adds a second credential; the first goes on. @throws `LimitExceeded` when there are two. */
  rotateCredential(name: string, given?: NewCredential): Promise<NewCredential>
  /** @throws `Conflict` for the last one. */
  retireCredential(name: string, accessKeyId: string): Promise<void>
  setStoreBlocked(name: string, isBlocked: boolean): Promise<void>
  setKeyBlocked(name: string, externalKeyId: string, isBlocked: boolean): Promise<void>
  addKey(name: string, externalKeyId: string, keyReference: string, locale: Locale): Promise<StoreKeyDescription>
  removeKey(name: string, externalKeyId: string): Promise<void>
  listKeys(name: string): Promise<readonly StoreKeyDescription[]>
}

export interface StoreAdministrationParts {
  readonly catalog: Pick<Catalog, 'findDocument' | 'listDocuments' | 'changeDocument'>
  readonly stores: Stores
  readonly seal: (secret: Uint8Array, context: string) => Promise<Buffer>
  readonly keys: Pick<KeyService, 'resolve' | 'keyArn'>
  readonly direct: Pick<DirectKeys, 'find' | 'describe'>
  readonly account: string
  /** Epoch milliseconds. */
  readonly now: () => number
}

const credentialsMax = 2
/** AWS KMS API Reference, XksProxyAuthenticationCredentialType. */
const accessKeyIdForm = /^[A-Z2-7]{20,30}$/
const secretForm = /^[A-Za-z0-9/+=]{43,64}$/
const nameForm = /^[a-z0-9][a-z0-9-]{0,62}$/
const regionForm = /^[a-z]{2,4}(-[a-z]+)+-\d{1,2}$/
const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
const listMax = 100

export function createStoreAdministration(parts: StoreAdministrationParts): StoreAdministration {
  const { catalog, stores, seal, keys, direct, account, now } = parts
  /** New stores one after another: no two have one URI path. */
  const inTurn = createTurns()

  async function change(name: string, next: (found: StoreDocument) => StoreDocument | null): Promise<StoreDocument> {
    let before: StoreDocument | undefined
    await catalog.changeDocument(storeCollection, name, (body) => {
      if (body === undefined) throw storeNotFound(name)
      before = parseStore(body)
      const after = next(before)
      return after === null ? null : JSON.stringify(after)
    })
    await stores.reload(name)
    return before as StoreDocument
  }

  async function sealed(store: string, { accessKeyId, secretAccessKey }: NewCredential): Promise<StoredCredential> {
    const secret = Buffer.from(secretAccessKey)
    const sealedSecret = (await seal(secret, sealContext(store, accessKeyId))).toString('base64')
    secret.fill(0)
    return { accessKeyId, sealedSecret, createdAt: now() }
  }

  async function changeKey(
    name: string,
    externalKeyId: string,
    next: (found: KeyDocument | undefined) => KeyDocument | null,
  ): Promise<void> {
    if (stores.get(name) === undefined) throw storeNotFound(name)
    await catalog.changeDocument(keyCollection, nameOfKeyDocument(name, externalKeyId), (body) => {
      const after = next(body === undefined ? undefined : parseKey(body))
      return after === null ? null : JSON.stringify(after)
    })
    await stores.reload(name, externalKeyId)
  }

  async function describe(name: string): Promise<StoreDescription> {
    const body = await catalog.findDocument(storeCollection, name)
    if (body === undefined) throw storeNotFound(name)
    return toDescription(name, parseStore(body), stores.get(name)?.keys.size ?? 0)
  }

  async function describeKey(store: string, externalKeyId: string, document: KeyDocument) {
    const entry = await direct.find(document)
    return {
      store,
      externalKeyId,
      arn: keys.keyArn(document),
      isBlocked: document.isBlocked,
      ...(entry === undefined ? {} : { usages: direct.describe(entry).usages }),
    }
  }

  return {
    async create(request) {
      const { name, credential = makeCredential(), ...settings } = request
      checkStore(request)
      checkCredential(credential)
      return inTurn(async () => {
        const taken = (await catalog.listDocuments(storeCollection)).find(
          ({ body }) => parseStore(body).prefix === settings.prefix,
        )
        if (taken !== undefined) {
          const text = `The URI path ${uriPathOf(settings.prefix)} belongs to store ${taken.name}.`
          throw new GatewayError('AlreadyExists', { text })
        }
        const credentials = [await sealed(name, credential)]
        const document: StoreDocument = { ...settings, account, isBlocked: false, createdAt: now(), credentials }
        await catalog.changeDocument(storeCollection, name, (found) => {
          if (found !== undefined) throw new GatewayError('AlreadyExists', { text: `A store ${name} exists.` })
          return JSON.stringify(document)
        })
        await stores.reload(name)
        return { ...toDescription(name, document, 0), credential }
      })
    },

    async list() {
      const documents = await catalog.listDocuments(storeCollection)
      return documents.map(({ name, body }) => toDescription(name, parseStore(body), stores.get(name)?.keys.size ?? 0))
    },

    describe,

    async remove(name) {
      await describe(name)
      await stores.reload(name)
      const count = stores.get(name)?.keys.size ?? 0
      if (count > 0) throw new GatewayError('Conflict', { text: `Store ${name} has ${count} keys; remove them first.` })
      await change(name, () => null)
    },

    async rotateCredential(name, given) {
      const credential = given ?? makeCredential()
      checkCredential(credential)
      await describe(name)
      const stored = await sealed(name, credential)
      await change(name, (found) => {
        if (found.credentials.length >= credentialsMax) {
          const text = `Store ${name} has two credentials; retire one of them first: xks store retire-credential.`
          throw new GatewayError('LimitExceeded', { text })
        }
        if (found.credentials.some(({ accessKeyId }) => accessKeyId === credential.accessKeyId)) {
          throw new GatewayError('AlreadyExists', { text: `Store ${name} has a credential of that id.` })
        }
        return { ...found, credentials: [...found.credentials, stored] }
      })
      return credential
    },

    async retireCredential(name, accessKeyId) {
      await change(name, (found) => {
        const credentials = found.credentials.filter((one) => one.accessKeyId !== accessKeyId)
        if (credentials.length === found.credentials.length) {
          throw new GatewayError('NotFound', { text: `Store ${name} has no credential ${accessKeyId}.` })
        }
        if (credentials.length === 0) {
          const text = `It is the only credential of store ${name}; rotate it first, or block the store.`
          throw new GatewayError('Conflict', { text })
        }
        return { ...found, credentials }
      })
    },

    async setStoreBlocked(name, isBlocked) {
      await change(name, (found) => ({ ...found, isBlocked }))
    },

    async setKeyBlocked(name, externalKeyId, isBlocked) {
      await changeKey(name, externalKeyId, (found) => {
        if (found === undefined) throw keyNotFound(name, externalKeyId)
        return { ...found, isBlocked }
      })
    },

    async addKey(name, externalKeyId, keyReference, locale) {
      if (!externalKeyIdForm.test(externalKeyId)) {
        throw invalid('An external key id has 1 to 128 letters, digits and any of ._-')
      }
      const { entry } = await keys.resolve(keyReference, 'key-or-alias', locale).catch((cause) => {
        if (!isCode(cause, 'KeyNotFound')) throw cause
        throw new GatewayError('NotFound', { text: cause.params.text }, { cause })
      })
      const key = entry && (await direct.find(entry.key))
      if (key === undefined) {
        throw invalid('Keys of an external key store are AES-256 keys of purpose xks: `xks key create`, `key adopt`.')
      }
      const { account: owner, region, keyId } = key.key
      const document = { account: owner, region, keyId, isBlocked: false, createdAt: now() }
      await changeKey(name, externalKeyId, (found) => {
        if (found === undefined) return document
        throw new GatewayError('AlreadyExists', { text: `Store ${name} has a key ${externalKeyId}.` })
      })
      return describeKey(name, externalKeyId, document)
    },

    async removeKey(name, externalKeyId) {
      await changeKey(name, externalKeyId, (found) => {
        if (found === undefined) throw keyNotFound(name, externalKeyId)
        return null
      })
    },

    async listKeys(name) {
      await describe(name)
      const prefix = `${name}/`
      const documents = await catalog.listDocuments(keyCollection)
      const own = documents.filter((document) => document.name.startsWith(prefix))
      return Promise.all(own.map((one) => describeKey(name, one.name.slice(prefix.length), parseKey(one.body))))
    },
  }
}

function toDescription(name: string, document: StoreDocument, keys: number): StoreDescription {
  const { credentials, ...visible } = document
  const shown = credentials.map(({ accessKeyId, createdAt }) => ({ accessKeyId, createdAt }))
  return { ...visible, name, uriPath: uriPathOf(document.prefix), credentials: shown, keys }
}

/** @throws GatewayError `ValidationFailed` with everything that is wrong. */
function checkStore({ name, prefix, region, requestsPerSecond, principals, clientNames }: NewStore): void {
  const isRate = requestsPerSecond === null || (Number.isSafeInteger(requestsPerSecond) && requestsPerSecond >= 1)
  const problems = [
    nameForm.test(name) ? '' : 'a name has 1 to 63 lower-case letters, digits and hyphens',
    isPrefix(prefix)
      ? ''
      : `a prefix has at most ${prefixCharsMax} characters: segments of letters, digits, _ and -, each after a slash`,
    regionForm.test(region) ? '' : 'the Region is not one, such as us-east-1',
    isRate ? '' : 'requests in a second are a number of at least 1',
    principals.every((pattern) => /^[\x21-\x7e ]{1,2048}$/.test(pattern) && !pattern.includes('$'))
      ? ''
      : 'a pattern of AWS principals has 1 to 2048 printable characters',
    clientNames.every((one) => /^[\x21-\x7e]{1,253}$/.test(one)) ? '' : 'a client name has 1 to 253 characters',
    principals.length <= listMax && clientNames.length <= listMax ? '' : `a list has at most ${listMax} entries`,
  ].filter((text) => text !== '')
  if (problems.length > 0) throw invalid(`${problems.join('; ')}.`)
}

function checkCredential({ accessKeyId, secretAccessKey }: NewCredential): void {
  if (!accessKeyIdForm.test(accessKeyId)) {
    throw invalid('An access key id has 20 to 30 upper-case letters and digits 2 to 7.')
  }
  if (!secretForm.test(secretAccessKey)) {
    throw invalid('A secret access key has 43 to 64 letters, digits and any of /+=')
  }
}

function makeCredential(): NewCredential {
  const accessKeyId = Array.from({ length: 24 }, () => base32[randomInt(base32.length)]).join('')
  return { accessKeyId, secretAccessKey: randomBytes(36).toString('base64') }
}

function storeNotFound(name: string): GatewayError {
  return new GatewayError('NotFound', { text: `There is no external key store ${name}.` })
}

function keyNotFound(name: string, externalKeyId: string): GatewayError {
  return new GatewayError('NotFound', { text: `Store ${name} has no key ${externalKeyId}.` })
}
