/**
 * Makes what a relay needs before an operator of the gateway can approve it: a key that never leaves this host, a request for a certificate
 * and a configuration. What is there already stays: the same key is enrolled again when its certificate is to be renewed.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { makeCertificateRequest } from '../certificates.ts'
import { type Problem, ProblemsError } from '../problem.ts'
import { keyIdOf } from '../tls-reference.ts'
import { parsePlace } from './place.ts'

export interface EnrolmentFiles {
  readonly config: string
  readonly key: string
  readonly request: string
  readonly certificate: string
  readonly ca: string
}

/** Names in the folder of an enrolled relay. */
export const enrolmentFiles: EnrolmentFiles = {
  config: 'relay.json',
  key: 'relay.key',
  request: 'relay.csr',
  certificate: 'relay.crt',
  ca: 'gateway-ca.pem',
}

/** P-256, PKCS#8 in PEM. */
export function makeRelayKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
}

export interface RelayRequest {
  /** PEM. */
  readonly request: string
  /** Lower-case hex SHA-256 of the public key: what an operator compares before he approves. */
  readonly digest: string
}

/** @throws ProblemsError when the key is none on P-256; GatewayError `ValidationFailed` for a name that is no common name. */
export async function makeRelayRequest(keyPem: string, keyFile: string, name: string): Promise<RelayRequest> {
  const key = readKey(keyPem, keyFile)
  const publicKey = createPublicKey(key).export({ format: 'der', type: 'spki' })
  const request = await makeCertificateRequest(
    {
      spec: 'ECC_NIST_P256',
      publicKey,
      // raw r || s, as the generator of requests wants it
      sign: async (tbs) => sign('sha256', tbs, { key, dsaEncoding: 'ieee-p1363' }),
    },
    { subject: `CN=${name}`, san: [] },
  )
  return { request, digest: keyIdOf(publicKey).toString('hex') }
}

/** Text of a configuration for these gateways, `host:port` each. @throws ProblemsError */
export function makeRelayConfig(gateways: readonly string[]): string {
  const problems: Problem[] = []
  for (const address of gateways) parsePlace({ address }, '--gateway', problems)
  if (problems.length > 0) throw new ProblemsError(problems)
  const { key, certificate, ca } = enrolmentFiles
  const document = {
    gateways: gateways.map((address) => ({ address })),
    certificateFile: certificate,
    keyFile: key,
    caFile: ca,
  }
  return `${JSON.stringify(document, null, 2)}\n`
}

function readKey(pem: string, file: string): KeyObject {
  const remedy = 'choose another folder, or remove the file for a new key'
  try {
    const key = createPrivateKey(pem)
    if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return key
  } catch {
    // said below
  }
  throw new ProblemsError([{ at: file, cause: 'is there and is no private key on P-256 in PEM', remedy }])
}
