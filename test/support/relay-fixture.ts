/**
 * What the unit tests of a relay have in common: certificates in a folder of their own, gateways with one software key, relays in front of
 * them and clients that ask for a signature.
 *
 *   const { startGateway, relayTo, connectTo, request, isSigned, close } = await openRelayFixture()
 *   afterAll(close)
 */
import { randomBytes, verify } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Request } from '../../src/transport/offload/frames.ts'
import { certificateVerify, connectHks, type HksAnswer, type HksClient, type HksOptions } from './hks-client.ts'
import { startRelay, type TestRelay, type TestRelayOptions } from './relay.ts'
import {
  makeRelayPki,
  makeSoftKey,
  type RelayFiles,
  type RelayGateway,
  type RelayGatewayOptions,
  type RelayPki,
  type SoftKey,
  startRelayGateway,
} from './relay-gateway.ts'

export interface RelayFixture {
  readonly pki: RelayPki
  /** Of the relay `web-host`. */
  readonly files: RelayFiles
  readonly key: SoftKey
  /** A handshake to be signed. */
  readonly request: Pick<Request, 'keyId' | 'input'>
  startGateway(options?: RelayGatewayOptions): Promise<RelayGateway>
  relayTo(
    gateways: readonly { readonly address: string }[],
    options?: Partial<Omit<TestRelayOptions, 'gateways'>>,
  ): Promise<TestRelay>
  connectTo(relay: Pick<TestRelay, 'socket'>, options?: HksOptions): Promise<HksClient>
  isSigned(answer: HksAnswer): boolean
  close(): void
}

export async function openRelayFixture(): Promise<RelayFixture> {
  const pki = await makeRelayPki(mkdtempSync(path.join(tmpdir(), 'hsmgate-relay-')))
  const files = await pki.issue('web-host')
  const key = makeSoftKey()
  const input = certificateVerify('server', randomBytes(32))
  return {
    pki,
    files,
    key,
    request: { keyId: key.keyId, input },
    startGateway: (options) => startRelayGateway(pki, key, options),
    relayTo: (gateways, options) =>
      startRelay(pki, { gateways: gateways.map(({ address }) => address), files, ...options }),
    connectTo: (relay, options) => connectHks(relay.socket, { tokens: [key.token], ...options }),
    isSigned: (answer) => answer.ok && verify('sha256', input, key.publicKey, answer.signature),
    close: () => rmSync(pki.folder, { recursive: true, force: true }),
  }
}
