/**
 * graphene over pkcs11js for token objects, attached to a module that the addon has opened, initialised and logged in: it never calls
 * C_Initialize, C_Login or C_Finalize. Every call is synchronous and blocks this process, which exists for that. One caller at a time.
 */
import graphene, { type Session, type Slot } from 'graphene-pk11'
import { CKA, CKO, rwSerialSession } from './cryptoki.ts'
import { refusal } from './failure.ts'
import { classNumbers, type KeyClass } from './handles.ts'
import type { AttributeValue, Template } from './pack.ts'

/** graphene names attributes; these are the ones that our templates use. */
const names: Readonly<Record<number, string>> = {
  [CKA.class]: 'class',
  [CKA.token]: 'token',
  [CKA.private]: 'private',
  [CKA.label]: 'label',
  [CKA.keyType]: 'keyType',
  [CKA.id]: 'id',
  [CKA.sensitive]: 'sensitive',
  [CKA.encrypt]: 'encrypt',
  [CKA.decrypt]: 'decrypt',
  [CKA.wrap]: 'wrap',
  [CKA.unwrap]: 'unwrap',
  [CKA.sign]: 'sign',
  [CKA.verify]: 'verify',
  [CKA.derive]: 'derive',
  [CKA.modulusBits]: 'modulusBits',
  [CKA.publicExponent]: 'publicExponent',
  [CKA.valueLen]: 'valueLen',
  [CKA.extractable]: 'extractable',
  [CKA.ecParams]: 'paramsEC',
  [CKA.parameterSet]: 'parameterSet',
  [CKA.encapsulate]: 'encapsulate',
  [CKA.decapsulate]: 'decapsulate',
}

// of PKCS#11 3.2, which graphene does not name yet
graphene.registerAttribute('parameterSet', CKA.parameterSet, 'number')
graphene.registerAttribute('encapsulate', CKA.encapsulate, 'boolean')
graphene.registerAttribute('decapsulate', CKA.decapsulate, 'boolean')

function named(template: Template): Record<string, AttributeValue | string> {
  return Object.fromEntries(
    template.map(([type, value]) => {
      const name = names[type]
      if (name === undefined) throw new TypeError(`attribute 0x${type.toString(16)} has no name here`)
      // the label goes in as text
      return [name, type === CKA.label ? Buffer.from(value as Uint8Array).toString('utf8') : value]
    }),
  )
}

/** CK_RV and function of what pkcs11js throws; `undefined` for anything else. */
export function pkcs11Refusal(error: unknown): { rv: number; call: string } | undefined {
  if (!(error instanceof Error)) return undefined
  const { code, method } = error as Error & { code?: unknown; method?: unknown }
  if (typeof code !== 'number' || code === 0) return undefined
  return { rv: code, call: typeof method === 'string' ? method : '' }
}

const sessionHandleInvalid = 0xb3
const sessionClosed = 0xb0

export interface ObjectQuery {
  readonly objectClass: KeyClass | 'certificate'
  /** An empty one says nothing: modules differ in whether an object without an id has an empty CKA_ID or none. */
  readonly objectId?: Uint8Array | undefined
  readonly label?: string | undefined
}

export class GrapheneToken {
  readonly #module: graphene.Module
  readonly #serial: string
  readonly #label: string
  #session: Session | undefined

  constructor(modulePath: string, token: { readonly serial: string; readonly label: string }) {
    this.#module = graphene.Module.load(modulePath)
    this.#serial = token.serial
    this.#label = token.label
  }

  /** Handles of the token objects that match. */
  find({ objectClass, objectId, label }: ObjectQuery): bigint[] {
    const template = {
      class: objectClass === 'certificate' ? CKO.certificate : classNumbers[objectClass],
      token: true,
      ...(objectId === undefined || objectId.length === 0 ? {} : { id: Buffer.from(objectId) }),
      ...(label === undefined || label === '' ? {} : { label }),
    }
    return this.#with([sessionHandleInvalid, sessionClosed], (session) => {
      const found = session.find(template)
      return Array.from({ length: found.length }, (_, i) => found.items(i).handle.readBigUInt64LE())
    })
  }

  generateKey(mechanism: number, template: Template): bigint {
    return this.#with([sessionHandleInvalid], (session) => {
      const key = session.generateKey({ name: mechanism as never, params: null as never }, named(template))
      return key.handle.readBigUInt64LE()
    })
  }

  generateKeyPair(mechanism: number, publicTemplate: Template, privateTemplate: Template) {
    return this.#with([sessionHandleInvalid], (session) => {
      const pair = session.generateKeyPair(
        { name: mechanism as never, params: null as never },
        named(publicTemplate),
        named(privateTemplate),
      )
      return {
        publicHandle: pair.publicKey.handle.readBigUInt64LE(),
        privateHandle: pair.privateKey.handle.readBigUInt64LE(),
      }
    })
  }

  destroy(handle: bigint): void {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(handle)
    this.#with([sessionHandleInvalid], (session) => {
      new graphene.SessionObject(bytes, session, session.lib).destroy()
    })
  }

  close(): void {
    this.#session?.close()
    this.#session = undefined
  }

  /** Runs on the open session; once more on a new one after a code that says the call did not happen. */
  #with<T>(reopenOn: readonly number[], use: (session: Session) => T): T {
    this.#session ??= this.#open()
    try {
      return use(this.#session)
    } catch (error) {
      const rv = pkcs11Refusal(error)?.rv
      if (rv !== sessionHandleInvalid && rv !== sessionClosed) throw error
      this.#session = undefined
      if (!reopenOn.includes(rv)) throw error
      this.#session = this.#open()
      return use(this.#session)
    }
  }

  /** Read-write and serial. The user is logged in already: login belongs to the process, not to the session. */
  #open(): Session {
    let slot: Slot | undefined
    try {
      slot = this.#findSlot()
    } catch (error) {
      // SoftHSM2 cannot tell what a token is called while another process writes to it.
      if (pkcs11Refusal(error) === undefined) throw error
      slot = this.#findSlot()
    }
    if (slot === undefined) throw refusal('KeyUnavailable', 'the token is no longer there', 'D')
    return slot.open(rwSerialSession)
  }

  #findSlot(): Slot | undefined {
    const slots = this.#module.getSlots(true)
    for (let i = 0; i < slots.length; i++) {
      const slot = slots.items(i)
      const { serialNumber, label } = slot.getToken()
      if (serialNumber.trim() === this.#serial && label.trim() === this.#label) return slot
    }
    return undefined
  }
}
