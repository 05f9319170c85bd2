/** Puts the XKS door together: its stores, what it proves its health with, its TLS files, which are read again when they change. */
import { X509Certificate } from 'node:crypto'
import type { KeyEntry } from './catalog/catalog.ts'
import type { Config, TlsConfig } from './config/config.ts'
import type { Hsm } from './hsm/port.ts'
import type { DirectKeys, KeyService } from './keys/keys.ts'
import type { Observer, XksState } from './observe/observe.ts'
import type { Pipeline } from './pipeline.ts'
import { readTlsFiles, type TlsFiles } from './reload.ts'
import { createXksDoor, type XksDoor, type XksFaults, type XksStores } from './transport/xks/xks.ts'

export interface XksDoorParts {
  readonly config: Config
  readonly pipeline: Pipeline
  readonly stores: XksStores
  readonly faults: XksFaults
  readonly keys: KeyService
  readonly direct: DirectKeys
  readonly hsm: Pick<Hsm, 'groups'>
  readonly observer: Observer
  /** The key of health checks in a group. */
  readonly proofKey: (group: string) => Promise<KeyEntry>
}

const vendors: Readonly<Record<string, string>> = {
  softhsm: 'SoftHSM2',
  cloudhsm: 'AWS CloudHSM',
  luna: 'Thales Luna',
  nshield: 'Entrust nShield',
  utimaco: 'Utimaco',
  yubihsm2: 'YubiHSM 2',
  generic: 'PKCS#11',
}

/** How often the TLS files are looked at. */
const lookMs = 60_000

export interface OpenedXksDoor extends XksDoor {
  state(): XksState
  /** For connections that come from now on. @throws Error when OpenSSL refuses them, TypeError where the listener has no TLS */
  setCertificates(tls: TlsFiles, from: TlsConfig): void
}

export function openXksDoor(parts: XksDoorParts): OpenedXksDoor {
  const { config, pipeline, stores, faults, keys, direct, hsm, observer } = parts
  const { deadlineMs, expectedHost } = config.xks
  let tls = config.listen.xks?.tls
  const files = tls && readTlsFiles(tls)
  const door = createXksDoor({
    pipeline,
    stores,
    faults,
    keys,
    direct,
    partition: config.partition,
    deadlineMs,
    health: {
      groups: () => hsm.groups(),
      defaultGroup: config.defaultGroup,
      direct,
      proofKey: parts.proofKey,
      vendorOf: (token) => vendors[config.tokens[token]?.profile ?? ''] ?? 'PKCS#11',
      proven: observer.xksProven,
      failed: (cause, group) => observer.unexpected(`xks health of group ${group}`, cause),
    },
    onRefused: (name) => observer.note('debug', 'request refused', { door: 'xks', name }),
    ...(expectedHost === undefined ? {} : { expectedHost }),
    ...(files === undefined ? {} : { tls: files }),
  })
  let current = files
  /** A renewed certificate is served without a restart: an expired one would make all data unreadable. */
  const timer = setInterval(() => {
    if (tls === undefined || current === undefined) return
    try {
      const read = readTlsFiles(tls)
      if (Buffer.compare(read.cert, current.cert) === 0 && Buffer.compare(read.key, current.key) === 0) return
      door.replaceCertificate(read)
      current = read
      observer.note('info', 'certificate of the XKS door replaced', {})
    } catch (cause) {
      observer.unexpected('certificate of the XKS door', cause)
    }
  }, lookMs)
  timer.unref()

  return {
    ...door,
    state: () => ({
      stores: stores.list().map(({ name, isBlocked, keys: listed }) => ({
        name,
        isBlocked,
        keysBlocked: [...listed.values()].filter((key) => key.isBlocked).length,
        credentials: stores
          .credentials()
          .filter(({ store }) => store === name)
          .map(({ createdAt }) => createdAt),
      })),
      certificateEndsAt: current && Date.parse(new X509Certificate(current.cert).validTo),
    }),
    setCertificates(read, from) {
      door.replaceCertificate(read)
      tls = from
      current = read
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await door[Symbol.asyncDispose]()
    },
  }
}
