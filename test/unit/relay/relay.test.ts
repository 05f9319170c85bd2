/** A relay between local clients and gateways with software keys: what it forwards, how it fails over, what it limits. */
import { randomBytes, verify } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { certificateVerify, connectHks } from '../../support/hks-client.ts'
import { startRelay } from '../../support/relay.ts'
import {
  makeRelayPki,
  makeSoftKey,
  type RelayFiles,
  type RelayPki,
  startRelayGateway,
} from '../../support/relay-gateway.ts'

let pki: RelayPki
let files: RelayFiles
const key = makeSoftKey()
const message = certificateVerify('server', randomBytes(32))

beforeAll(async () => {
  pki = await makeRelayPki(mkdtempSync(path.join(tmpdir(), 'hsmgate-relay-')))
  files = await pki.issue('web-host')
})
afterAll(() => rmSync(pki.folder, { recursive: true, force: true }))

describe('a relay', () => {
  it('has a gateway sign', async () => {
    await using gateway = await startRelayGateway(pki, key)
    await using relay = await startRelay(pki, { gateways: [gateway.address], files })
    await using client = await connectHks(relay.socket, { tokens: [key.token], app: 'nginx' })
    const answer = await client.sign({ keyId: key.keyId, input: message })
    expect(answer.ok && verify('sha256', message, key.publicKey, answer.signature)).toBe(true)
  })
})
