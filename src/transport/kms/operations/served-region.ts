import { invalid } from '../kms-error.ts'
import type { KmsParts } from './key-operation.ts'

/** @throws GatewayError `ValidationFailed`: the documentation names no exception for a Region that there is not. */
export function requireServedRegion({ regions }: Pick<KmsParts, 'regions'>, region: string): void {
  if (regions?.has(region) === false) throw invalid(`The Region ${region} does not exist or is not enabled.`)
}
