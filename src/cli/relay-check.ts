/** What `hsmgate relay check` finds: files that fit together, and what each gateway makes of the certificate. It opens no socket. */
import { loadRelayConfig } from '../relay/config.ts'
import { loadCredentials } from '../relay/credentials.ts'
import { probeGateways } from '../relay/relay.ts'

export interface RelayCheck {
  readonly subject: string
  readonly digest: string
  readonly notAfter: number
  readonly gateways: readonly { readonly gateway: string; readonly problem?: string }[]
}

/** @throws ProblemsError for files that are missing or wrong. */
export async function checkRelay(file: string, environment: NodeJS.ProcessEnv): Promise<RelayCheck> {
  const config = loadRelayConfig(file, environment)
  const credentials = loadCredentials(config)
  const { subject, digest, notAfter } = credentials
  return { subject, digest, notAfter, gateways: await probeGateways(config, credentials) }
}
