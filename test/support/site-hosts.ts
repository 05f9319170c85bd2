/**
 * Names of one web server whose keys are in the module, each with bindings of its own, or in files: all with certificates of one authority. The
 * names share four keys, two here and two there.
 */
import { generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import { encodeReferencePem } from '../../src/tls-reference.ts'
import { type BoundKey, bindKey, createTlsKey } from './offload.ts'
import type { SiteAuthority } from './site-authority.ts'
import type { TlsSites } from './tls-sites.ts'
import type { VirtualHost } from './virtual-hosts.ts'

export type KeyKind = 'rsa' | 'ec'

export interface SiteHost extends VirtualHost {
  /** Of its keys, in the order of `pairs`. */
  readonly kinds: readonly KeyKind[]
  /** One for each key, when they are in the module. */
  readonly bindings: readonly BoundKey[]
}

export interface SiteHosts {
  inModule(name: string, kinds: readonly KeyKind[]): Promise<SiteHost>
  inFiles(name: string, kinds: readonly KeyKind[]): Promise<SiteHost>
}

type Asked = Parameters<typeof createTlsKey>[0]

export async function makeSiteHosts(
  gateway: Asked,
  { folder }: TlsSites,
  authority: SiteAuthority,
): Promise<SiteHosts> {
  const inModule = {
    rsa: await createTlsKey(gateway, 'RSA_2048'),
    ec: await createTlsKey(gateway, 'ECC_NIST_P256'),
  }
  const inFiles = {
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  }
  const chainEnd = readFileSync(authority.certificate, 'utf8')
  const writePair = async (name: string, kind: KeyKind, publicKey: KeyObject, key: string) => {
    const place = path.join(folder, `${name}.${kind}`)
    writeFileSync(`${place}.crt`, (await authority.issue(publicKey, name)) + chainEnd)
    writeFileSync(`${place}.key`, key, { mode: 0o600 })
    return { certificate: `${place}.crt`, reference: `${place}.key` }
  }
  return {
    async inModule(name, kinds) {
      const bindings = []
      const pairs = []
      for (const kind of kinds) {
        const bound = await bindKey(gateway, inModule[kind])
        const { token, publicKey } = bound
        const reference = encodeReferencePem({ publicKey: publicKey.export({ type: 'spki', format: 'der' }), token })
        bindings.push(bound)
        pairs.push(await writePair(name, kind, publicKey, reference))
      }
      return { name, kinds, pairs, bindings }
    },
    async inFiles(name, kinds) {
      const pairs = []
      for (const kind of kinds) {
        const { publicKey, privateKey } = inFiles[kind]
        pairs.push(await writePair(name, kind, publicKey, `${privateKey.export({ type: 'pkcs8', format: 'pem' })}`))
      }
      return { name, kinds, pairs, bindings: [] }
    },
  }
}

/** For clients that visit a host: its name is asked for, and no other certificate for that name will do. */
export function askingFor({ name, pairs }: VirtualHost) {
  const own = pairs.map(({ certificate }) => new X509Certificate(readFileSync(certificate)).raw)
  return {
    servername: name,
    headers: { host: name },
    checkServerIdentity(asked: string, certificate: PeerCertificate): Error | undefined {
      const isOwn = own.some((raw) => raw.equals(certificate.raw))
      return isOwn ? checkServerIdentity(asked, certificate) : new Error(`a certificate for ${certificate.subject.CN}`)
    },
  }
}
