import { createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { copyFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { connect, createServer } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { completeDevelopmentTls } from '../../../src/cli/development-ca.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-ca-'))
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const read = (name: string) => readFile(path.join(folder, name), 'utf8')
const names = (files: readonly string[]) => files.map((file) => path.basename(file))
const days = (certificate: X509Certificate) =>
  (certificate.validToDate.getTime() + 1000 - certificate.validFromDate.getTime()) / 86_400_000

async function handshake(servername: string, host: string): Promise<boolean> {
  const server = createServer({ cert: await read('server.pem'), key: await read('server.key') }, (socket) =>
    socket.end(),
  )
  server.listen(0, host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const socket = connect({ host, port, ca: await read('ca.pem'), ...(servername === '' ? {} : { servername }) })
  try {
    await once(socket, 'secureConnect')
    return socket.authorized
  } finally {
    socket.destroy()
    server.close()
  }
}

describe('the development CA', () => {
  it('issues a server certificate that TLS clients accept for localhost and the loopback addresses', async () => {
    expect(names(await completeDevelopmentTls(folder))).toEqual(['ca.key', 'ca.pem', 'server.key', 'server.pem'])
    expect(await handshake('localhost', '127.0.0.1')).toBe(true)
    expect(await handshake('', '127.0.0.1')).toBe(true)
    await expect(handshake('example.com', '127.0.0.1')).rejects.toThrow(/altnames/)
  })

  it('may sign certificates and nothing else, and only for loopback names', async () => {
    await completeDevelopmentTls(folder)
    const ca = new X509Certificate(await read('ca.pem'))
    const server = new X509Certificate(await read('server.pem'))
    expect([ca.ca, server.ca, server.checkIssued(ca)]).toEqual([true, false, true])
    expect(days(server)).toBeLessThanOrEqual(825)
    // DER: KeyUsage keyCertSign and cRLSign, critical; NameConstraints, critical (RFC 5280 sections 4.2.1.3 and 4.2.1.10)
    expect(ca.raw.includes(Buffer.from('0603551d0f0101ff040403020106', 'hex'))).toBe(true)
    expect(ca.raw.includes(Buffer.from('0603551d1e0101ff', 'hex'))).toBe(true)
    for (const name of ['ca', 'server']) {
      const key = createPrivateKey(await read(`${name}.key`))
      expect(key.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' })
      expect((await stat(path.join(folder, `${name}.key`))).mode & 0o777).toBe(0o600)
    }
  })

  it('touches nothing that is there', async () => {
    await completeDevelopmentTls(folder)
    const before = await Promise.all((await readdir(folder)).map(read))
    expect(await completeDevelopmentTls(folder)).toEqual([])
    expect(await Promise.all((await readdir(folder)).map(read))).toEqual(before)
  })

  it('completes what is missing with the keys that are there', async () => {
    await completeDevelopmentTls(folder)
    const key = await read('server.key')
    for (const name of ['server.pem', 'ca.pem']) await rm(path.join(folder, name))
    expect(names(await completeDevelopmentTls(folder))).toEqual(['ca.pem', 'server.pem'])
    expect(await read('server.key')).toBe(key)
    expect(await handshake('localhost', '127.0.0.1')).toBe(true)
  })

  it('needs no CA key once all is issued', async () => {
    await completeDevelopmentTls(folder)
    await rm(path.join(folder, 'ca.key'))
    expect(await completeDevelopmentTls(folder)).toEqual([])
  })

  it('refuses to guess when a certificate has lost its key', async () => {
    await completeDevelopmentTls(folder)
    await rm(path.join(folder, 'server.key'))
    await expect(completeDevelopmentTls(folder)).rejects.toMatchObject({
      problems: [{ at: path.join(folder, 'server.key'), cause: 'server.pem is there, but its key is missing' }],
    })
    expect(names(await readdir(folder))).not.toContain('server.key')
  })

  it('refuses a key that is none', async () => {
    await writeFile(path.join(folder, 'ca.key'), 'garbage')
    await expect(completeDevelopmentTls(folder)).rejects.toMatchObject({
      problems: [{ cause: 'is not a private key on P-256 in PEM' }],
    })
  })

  it('notices a CA whose key was exchanged', async () => {
    const other = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-ca-'))
    await completeDevelopmentTls(other)
    await completeDevelopmentTls(folder)
    await copyFile(path.join(other, 'ca.key'), path.join(folder, 'ca.key'))
    await rm(other, { recursive: true })
    await rm(path.join(folder, 'server.pem'))
    await expect(completeDevelopmentTls(folder)).rejects.toMatchObject({
      problems: [{ cause: 'was not issued by the ca.pem beside it' }],
    })
  })
})
