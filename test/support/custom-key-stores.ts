/**
 * Gateways with tokens for custom key stores, and what tests of stores do again and again.
 *
 *   const store = await createClusterStore(kms, cluster)
 *   await connectStore(kms, store)
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import {
  ConnectCustomKeyStoreCommand,
  CreateCustomKeyStoreCommand,
  type CustomKeyStoresListEntry,
  DescribeCustomKeyStoresCommand,
  DisconnectCustomKeyStoreCommand,
  type KMSClient,
} from '@aws-sdk/client-kms'
import { completeDevelopmentTls } from '../../src/cli/development-ca.ts'
import type { TestToken } from './softhsm.ts'

export const clusterId = 'cluster-2345abcdefg'

/** A folder with ca.pem, server.pem and server.key for loopback names; removed with it. */
export async function createCertificates(): Promise<
  { readonly directory: string; readonly ca: string } & AsyncDisposable
> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-tls-'))
  await completeDevelopmentTls(directory)
  return {
    directory,
    ca: await readFile(path.join(directory, 'ca.pem'), 'utf8'),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  }
}

/** The entry of `tokens` that makes a token a cluster. */
export function clusterToken(token: TestToken, more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    module: token.module,
    label: token.label,
    profile: 'softhsm',
    env: token.env,
    workers: 1,
    clusterId,
    ...more,
  }
}

export async function passwordOf(token: TestToken): Promise<string> {
  return (await readFile(token.pinFile, 'utf8')).trim()
}

export async function describeStore(kms: KMSClient, CustomKeyStoreId: string): Promise<CustomKeyStoresListEntry> {
  const { CustomKeyStores = [] } = await kms.send(new DescribeCustomKeyStoresCommand({ CustomKeyStoreId }))
  return CustomKeyStores[0] as CustomKeyStoresListEntry
}

/** Polls until the store's state is none of those on the way, as every client of the API does. */
export async function settledStore(kms: KMSClient, id: string): Promise<CustomKeyStoresListEntry> {
  for (;;) {
    const store = await describeStore(kms, id)
    if (store.ConnectionState !== 'CONNECTING' && store.ConnectionState !== 'DISCONNECTING') return store
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}

export async function connectStore(kms: KMSClient, CustomKeyStoreId: string): Promise<CustomKeyStoresListEntry> {
  await kms.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId }))
  return settledStore(kms, CustomKeyStoreId)
}

export async function disconnectStore(kms: KMSClient, CustomKeyStoreId: string): Promise<CustomKeyStoresListEntry> {
  await kms.send(new DisconnectCustomKeyStoreCommand({ CustomKeyStoreId }))
  return settledStore(kms, CustomKeyStoreId)
}

export async function createClusterStore(
  kms: KMSClient,
  cluster: { readonly password: string; readonly trustAnchor: string; readonly name?: string },
): Promise<string> {
  const { CustomKeyStoreId } = await kms.send(
    new CreateCustomKeyStoreCommand({
      CustomKeyStoreName: cluster.name ?? 'cluster store',
      CloudHsmClusterId: clusterId,
      TrustAnchorCertificate: cluster.trustAnchor,
      KeyStorePassword: cluster.password,
    }),
  )
  return CustomKeyStoreId as string
}
