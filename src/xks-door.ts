/** Puts the XKS door together: its stores, what it proves its health with, its TLS files, which are read again when they change. */
import { readFileSync } from 'node:fs'
import type { KeyEntry } from './catalog/catalog.ts'
import type { Config, TlsConfig } from './config/config.ts'
import type { Hsm } from './hsm/port.ts'
import type { DirectKeys, KeyService } from './keys/keys.ts'
import type { Observer } from './observe/observe.ts'
import type { Pipeline } from './pipeline.ts'
import { createXksDoor, type XksDoor, type XksFaults, type XksStores, type XksTls } from './transport/xks/xks.ts'

export interface XksDoorParts {
  readonly config: Config
  readonly pipeline: Pipeline
  readonly stores: XksStores
  readonly faults: XksFaults
  readonly keys: KeyService
  readonly direct: DirectKeys
  readonly hsm: Pick<Hsm, 'groups'>
  readonly observer: Observer
  /** The key of health checks. */
  readonly proofKey: () => Promise<KeyEntry>
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

export function openXksDoor(parts: XksDoorParts): XksDoor {
  const { config, pipeline, stores, faults, keys, direct, hsm, observer } = parts
  const { deadlineMs, expectedHost } = config.xks
  const tls = config.listen.xks?.tls
  return createXksDoor({
    pipeline,
    stores,
    faults,
    keys,
    direct,
    partition: config.partition,
    deadlineMs,
    health: {
      groups: () => hsm.groups(),
      group: config.defaultGroup,
      direct,
      proofKey: parts.proofKey,
      vendorOf: (token) => vendors[config.tokens[token]?.profile ?? ''] ?? 'PKCS#11',
      failed: (cause) => observer.unexpected('xks health', cause),
    },
    onRefused: (name) => observer.note('debug', 'request refused', { door: 'xks', name }),
    ...(expectedHost === undefined ? {} : { expectedHost }),
    ...(tls === undefined ? {} : { tls: readTls(tls) }),
  })
}

export function readTls({ certificateFile, keyFile, clientCaFile }: TlsConfig): XksTls {
  return {
    cert: readFileSync(certificateFile),
    key: readFileSync(keyFile),
    ...(clientCaFile !== undefined && { ca: readFileSync(clientCaFile) }),
  }
}
