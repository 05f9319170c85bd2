/**
 * Request quotas (AWS KMS Developer Guide, "Request quotas"): a token bucket for each account, Region and class of operations. A bucket
 * holds one second's worth, so that bursts of a client that waits are served. Decided before authorization, as AWS counts refused calls too.
 */
import { GatewayError } from '../../error.ts'

/** Requests in a second by class; an operation that stands in no row has the last one. */
const rates: Readonly<Record<string, number>> = {
  'crypto-symmetric': 10_000,
  'crypto-rsa': 500,
  'crypto-ecc': 300,
  'crypto-ml-dsa': 1000,
  // AWS names no rate of its own for ML-KEM: that of the other post-quantum keys
  'crypto-ml-kem': 1000,
  // AWS Security Token Service: all operations together
  sts: 600,
  'create-key': 5,
  'create-alias': 5,
  'update-alias': 5,
  'delete-alias': 15,
  'enable-key': 5,
  'disable-key': 5,
  'create-grant': 50,
  'describe-key': 2000,
  'get-public-key': 2000,
  'list-resource-tags': 2000,
  'get-key-policy': 1000,
  'get-key-rotation-status': 1000,
  'list-keys': 500,
  'list-aliases': 500,
  'list-grants': 100,
  'list-key-policies': 100,
  'list-retirable-grants': 100,
  'retire-grant': 30,
  'revoke-grant': 30,
  'put-key-policy': 15,
  'schedule-key-deletion': 15,
  'enable-key-rotation': 15,
  'tag-resource': 10,
  'untag-resource': 5,
  'get-parameters-for-import': 0.25,
  'delete-imported-key-material': 5,
  'data-key-pair-ecc-nist-p256': 25,
  'data-key-pair-ecc-nist-p384': 10,
  'data-key-pair-ecc-nist-p521': 5,
  'data-key-pair-ecc-secg-p256k1': 25,
  'data-key-pair-rsa-2048': 1,
  'data-key-pair-rsa-3072': 0.5,
  'data-key-pair-rsa-4096': 0.1,
  other: 5,
}

/**
 * The rate of all classes of cryptographic operations together. Which of them a call belongs to is known when its key has been looked up; this
 * one bounds the looking up.
 */
export const anyCryptographic = 'crypto'

export interface RequestQuotas {
  /** @throws GatewayError `Throttled` */
  take(account: string, region: string, className: string): void
  /** From now on; what was taken stays taken. */
  configure(limits: RequestLimits): void
}

export interface RequestLimits {
  /** Without them everything passes. Default true. */
  readonly enabled?: boolean
  /** Rates that differ from the table. */
  readonly requestsPerSecond: Readonly<Record<string, number>>
}

export interface RequestQuotaOptions extends RequestLimits {
  /** Monotonic milliseconds. */
  readonly nowMs?: () => number
}

interface Bucket {
  tokens: number
  readAtMs: number
}

export function createRequestQuotas(options: RequestQuotaOptions): RequestQuotas {
  const { nowMs = () => performance.now() } = options
  let limits: RequestLimits = options
  let total = totalOf(limits)
  // As many as accounts, Regions and classes there are: all three come from the configuration and this file, never from a request.
  const buckets = new Map<string, Bucket>()

  return {
    configure(next) {
      limits = next
      total = totalOf(next)
    },
    take(account, region, className) {
      if (limits.enabled === false) return
      const rate = className === anyCryptographic ? total : rateOf(limits, className)
      const capacity = Math.max(1, rate)
      const name = `${account}/${region}/${className}`
      const now = nowMs()
      let bucket = buckets.get(name)
      if (bucket === undefined) {
        bucket = { tokens: capacity, readAtMs: now }
        buckets.set(name, bucket)
      }
      bucket.tokens = Math.min(capacity, bucket.tokens + ((now - bucket.readAtMs) / 1000) * rate)
      bucket.readAtMs = now
      if (bucket.tokens < 1) throw new GatewayError('Throttled')
      bucket.tokens--
    },
  }
}

function rateOf({ requestsPerSecond }: RequestLimits, className: string): number {
  return requestsPerSecond[className] ?? rates[className] ?? (rates.other as number)
}

function totalOf(limits: RequestLimits): number {
  const names = Object.keys(rates).filter((name) => name.startsWith('crypto-'))
  return names.reduce((sum, name) => sum + rateOf(limits, name), 0)
}
