/** The AWS SDK's client with a method for each operation, and its refusals as plain values. */
import { type CreateKeyCommandInput, KMS, type KMSClientConfig } from '@aws-sdk/client-kms'
import { type TestGateway, testRegion } from './gateway.ts'

/** As the administrator unless told; sends every request once unless told. The test destroys it. */
export function openKms(
  { endpoint, credentials }: Pick<TestGateway, 'endpoint' | 'credentials'>,
  options: Partial<KMSClientConfig> = {},
): KMS {
  return new KMS({ endpoint, credentials, region: testRegion, maxAttempts: 1, ...options })
}

export interface NewKey {
  readonly id: string
  readonly arn: string
}

export async function makeKey(kms: KMS, request: CreateKeyCommandInput = {}): Promise<NewKey> {
  const { KeyMetadata } = await kms.createKey(request)
  return { id: KeyMetadata?.KeyId as string, arn: KeyMetadata?.Arn as string }
}

export interface Refusal {
  readonly name: string
  /** `UnknownError` where the body has none. */
  readonly message: string
  readonly status: number | undefined
  readonly attempts: number | undefined
}

/** How a call was refused. @throws Error when it succeeds */
export async function refusalOf(call: Promise<unknown>): Promise<Refusal> {
  let output: unknown
  try {
    output = await call
  } catch (cause) {
    const { name, message, $metadata } = cause as Error & {
      readonly $metadata?: { readonly httpStatusCode?: number; readonly attempts?: number }
    }
    return { name, message, status: $metadata?.httpStatusCode, attempts: $metadata?.attempts }
  }
  throw new Error(`succeeded: ${JSON.stringify(output)}`)
}
