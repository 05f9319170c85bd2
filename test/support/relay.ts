/** A relay in the process of a test, in front of whatever speaks HKS/1; what it noted is kept. */
import path from 'node:path'
import { loadAddon } from '../../src/hsm/worker/addon.ts'
import { parseRelayConfig, type RelayConfig } from '../../src/relay/config.ts'
import { loadCredentials } from '../../src/relay/credentials.ts'
import { openRelay, type Relay, type RelayEvents, type RelayParts } from '../../src/relay/relay.ts'
import type { RelayFiles, RelayPki } from './relay-gateway.ts'

export interface TestRelay extends AsyncDisposable {
  readonly relay: Relay
  readonly config: RelayConfig
  readonly socket: string
  /** One line for each event but those of single connections and attempts. */
  readonly noted: readonly string[]
}

export interface TestRelayOptions {
  readonly gateways: readonly string[]
  readonly files: Pick<RelayFiles, 'certificateFile' | 'keyFile'>
  readonly config?: Readonly<Record<string, unknown>>
  readonly caFile?: string
  readonly timing?: RelayParts['timing']
  /** Do not wait until a gateway can be reached. */
  readonly isUnreached?: boolean
}

let sockets = 0

export async function startRelay(
  pki: Pick<RelayPki, 'folder' | 'server'>,
  options: TestRelayOptions,
): Promise<TestRelay> {
  const { certificateFile, keyFile } = options.files
  const socket = path.join(pki.folder, `relay-${++sockets}.sock`)
  const document = {
    socket,
    gateways: options.gateways.map((address) => ({ address })),
    certificateFile,
    keyFile,
    caFile: options.caFile ?? pki.server.caFile,
    ...options.config,
  }
  const config = parseRelayConfig(document, pki.folder, {})
  const noted: string[] = []
  const note = (text: string) => void noted.push(text)
  const events: RelayEvents = {
    local: {
      connectionOpened() {},
      connectionClosed() {},
      protocolBroken: (_, detail) => note(`local protocol: ${detail}`),
      refused() {},
      peerRefused: (_, detail) => note(`local peer: ${detail}`),
      peerExpired() {},
    },
    gatewayUp: (gateway) => note(`up ${gateway}`),
    gatewayDown: (gateway, detail) => note(`down ${gateway}: ${detail}`),
    connectFailed: (gateway, detail) => note(`connect ${gateway}: ${detail}`),
    connectionLost: (gateway, detail) => note(`lost ${gateway}: ${detail}`),
    gatewayLeaving: (gateway) => note(`leaving ${gateway}`),
    gatewayRests: (gateway) => note(`rests ${gateway}`),
    attemptFailed: (gateway, end) => note(`attempt ${gateway}: ${end}`),
  }
  const { peerCredentials } = loadAddon()
  const relay = await openRelay({
    config,
    credentials: loadCredentials(config),
    events,
    peerCredentials,
    inherited: new Map(),
    ...(options.timing === undefined ? {} : { timing: options.timing }),
  })
  const isReached = () => relay.status().gateways.some(({ connections }) => connections > 0)
  for (let tries = 0; !options.isUnreached && !isReached(); tries++) {
    if (tries === 1000) {
      await relay[Symbol.asyncDispose]()
      throw new Error(`no gateway can be reached: ${noted.join('; ')}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return {
    relay,
    config,
    socket,
    noted,
    [Symbol.asyncDispose]: () => relay[Symbol.asyncDispose](),
  }
}
