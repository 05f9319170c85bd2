/**
 * Configured tokens as CloudHSM clusters: which there are, whether a certificate is the trust anchor of one, and what the answer of a module to a login means
 * as a connection error (PKCS#11 2.40, return values of C_Login). Reads certificates when it is opened.
 */
import { X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import type { GroupOpening, TokenGroups } from '../hsm/port.ts'
import { type ConnectionErrorCode, StoreError } from './stores.ts'

/** A token that a custom key store may use; its PIN comes with the store. */
export interface ClusterConfig {
  readonly clusterId: string
  readonly token: Omit<Parameters<TokenGroups['openGroup']>[1], 'pin' | 'pinFile'>
  /** PEM; without it any certificate is taken. */
  readonly trustAnchor?: string
}

export interface Clusters {
  find(clusterId: string): ClusterConfig | undefined
  /** @throws StoreError `CloudHsmClusterNotFound` */
  get(clusterId: string): ClusterConfig
  /** @throws StoreError `IncorrectTrustAnchor` */
  requireTrustAnchor(cluster: ClusterConfig, certificate: string): void
  /** @throws StoreError `CloudHsmClusterNotRelated` unless the clusters are known to share a certificate, as copies of one another do. */
  requireRelated(cluster: ClusterConfig, certificate: string): void
}

export function createClusters(configured: readonly ClusterConfig[]): Clusters {
  const byId = new Map(configured.map((cluster) => [cluster.clusterId, cluster]))
  const find = (clusterId: string) => byId.get(clusterId)
  return {
    find,
    get(clusterId) {
      const cluster = find(clusterId)
      if (cluster !== undefined) return cluster
      throw new StoreError('CloudHsmClusterNotFound', `The CloudHSM cluster ${clusterId} was not found.`)
    },
    requireTrustAnchor({ clusterId, trustAnchor }, certificate) {
      const given = readCertificate(certificate)
      if (given !== undefined && (trustAnchor === undefined || readCertificate(trustAnchor)?.equals(given))) return
      throw new StoreError(
        'IncorrectTrustAnchor',
        `The trust anchor certificate is not the trust anchor certificate of the CloudHSM cluster ${clusterId}.`,
      )
    },
    requireRelated({ clusterId, trustAnchor }, certificate) {
      const given = readCertificate(certificate)
      if (trustAnchor !== undefined && given !== undefined && readCertificate(trustAnchor)?.equals(given)) return
      throw new StoreError(
        'CloudHsmClusterNotRelated',
        `The CloudHSM cluster ${clusterId} does not have the same cluster certificate as the original cluster.`,
      )
    },
  }
}

/** DER of the one certificate in a PEM text. */
function readCertificate(pem: string): Buffer | undefined {
  try {
    return new X509Certificate(pem).raw
  } catch {
    return undefined
  }
}

/** Why the token cannot be reached at all, before any process is started. */
export function findAbsence({ token }: ClusterConfig): ConnectionErrorCode | undefined {
  return existsSync(token.module) ? undefined : 'CLUSTER_NOT_FOUND'
}

const codesOfReturnValues: Readonly<Record<number, ConnectionErrorCode>> = {
  3: 'CLUSTER_NOT_FOUND', // CKR_SLOT_ID_INVALID
  48: 'INSUFFICIENT_CLOUDHSM_HSMS', // CKR_DEVICE_ERROR
  50: 'INSUFFICIENT_CLOUDHSM_HSMS', // CKR_DEVICE_REMOVED
  160: 'INVALID_CREDENTIALS', // CKR_PIN_INCORRECT
  161: 'INVALID_CREDENTIALS', // CKR_PIN_INVALID
  162: 'INVALID_CREDENTIALS', // CKR_PIN_LEN_RANGE
  163: 'INVALID_CREDENTIALS', // CKR_PIN_EXPIRED
  164: 'USER_LOCKED_OUT', // CKR_PIN_LOCKED
  224: 'INSUFFICIENT_CLOUDHSM_HSMS', // CKR_TOKEN_NOT_PRESENT
  258: 'USER_NOT_FOUND', // CKR_USER_PIN_NOT_INITIALIZED
  259: 'USER_NOT_FOUND', // CKR_USER_TYPE_INVALID
  260: 'USER_LOGGED_IN', // CKR_USER_ANOTHER_ALREADY_LOGGED_IN
  261: 'USER_LOGGED_IN', // CKR_USER_TOO_MANY_TYPES
}

/** The worker found no token of that name: it says so by an action, since no module was asked (`rv` 0). */
const tokenIsGone = 'D'

export function connectionErrorOfToken({ failure }: GroupOpening & { ready: false }): ConnectionErrorCode {
  // The process died or never answered.
  if (failure === undefined) return 'NETWORK_ERRORS'
  if (failure.rv === 0 && failure.call === 'C_Login') return 'INVALID_CREDENTIALS'
  if (failure.rv === 0 && failure.action === tokenIsGone) return 'CLUSTER_NOT_FOUND'
  return codesOfReturnValues[failure.rv] ?? 'INTERNAL_ERROR'
}
