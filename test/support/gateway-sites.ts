/** A gateway in this process whose signing socket web servers reach as www-data, and the sites that it signs for. The token decides. */
import { execFileSync } from 'node:child_process'
import { startGateway, type TestGateway } from './gateway.ts'
import { buildProvider } from './provider.ts'
import type { TestToken } from './softhsm.ts'
import { openTlsSites, type TlsSites } from './tls-sites.ts'

export interface GatewaySites extends AsyncDisposable {
  readonly gateway: TestGateway
  readonly sites: TlsSites
}

const listen = {
  kms: { address: '127.0.0.1', port: 0 },
  operator: { http: { address: '127.0.0.1', port: 0 } },
  offload: { mode: '0666' },
}

/** `token`: one to use instead of a new one; not removed. */
export async function openGatewaySites(options: { readonly token?: TestToken } = {}): Promise<GatewaySites> {
  buildProvider()
  const gateway = await startGateway({ ...options, config: { listen } })
  // others' way to the socket
  execFileSync('chmod', ['-R', 'a+X', gateway.token.directory])
  const sites = openTlsSites(gateway, gateway.gateway.endpoints.offload[0] as string)
  return {
    gateway,
    sites,
    async [Symbol.asyncDispose]() {
      sites[Symbol.dispose]()
      await gateway[Symbol.asyncDispose]()
    },
  }
}
