/**
 * The one operation of this door: the signature that a token's holder asks for. Who may (token and peer), which key (the binding's, cross-checked
 * with the reference), what (the policies, on the bytes) and how much (limits) are settled in this order; the key's own policy and state can
 * still refuse.
 */
import { hash } from 'node:crypto'
import type { OffloadPolicy, TlsBinding } from '../../authenticate/tls-bindings.ts'
import type { ConditionContext } from '../../call.ts'
import type { KeyEntry } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { TlsSigner } from '../../keys/keys.ts'
import type { Operation, Prepared, Scope } from '../../pipeline.ts'
import type { BindingLimits } from './binding-limits.ts'
import { inputKinds, type Request, signatureAlgorithms } from './frames.ts'
import { OffloadError } from './offload-error.ts'
import { type Peer, type RelayCheck, refusalOfPeer } from './peer.ts'
import { findPolicy } from './policies.ts'
import { findSigningRow, type SigningRow } from './signing-algorithms.ts'

/** What came in, with the binding that its token stands for. */
export interface SignInput {
  readonly request: Request
  readonly binding: TlsBinding
  readonly peer: Peer
  readonly app: string
  /** As the client's HELLO says. */
  readonly pid: number
  /** Monotonic. */
  readonly receivedMs: number
}

interface SignResources {
  readonly entry: KeyEntry
  readonly row: SigningRow
  readonly policy: OffloadPolicy
}

export type SignOperation = Operation<SignInput, SignResources, Buffer>

export interface SignOperationParts {
  readonly signer: TlsSigner
  readonly limits: BindingLimits
  readonly isApproved: RelayCheck
  readonly maxInputBytes: number
  readonly timeoutMs: number
}

export function createSignOperation(parts: SignOperationParts): SignOperation {
  const { signer, limits, isApproved, maxInputBytes, timeoutMs } = parts
  return {
    name: 'Sign',
    readOnly: true,
    timeoutMs,

    parse: (raw) => raw as SignInput,

    async prepare({ request, binding, peer }, scope): Promise<Prepared<SignResources>> {
      const refusal = refusalOfPeer(binding, peer, isApproved)
      if (refusal !== undefined) throw refusal
      if (!request.keyId.equals(binding.spkiDigest)) throw mismatch()
      const row = requireRow(request, maxInputBytes)
      const policy = findPolicy(binding.policies, request)
      if (policy === undefined) throw outsidePolicies(binding, request)
      const entry = await signer.find(binding)
      if (!signer.spkiDigest(entry).equals(binding.spkiDigest)) throw mismatch()
      let conditions: ConditionContext | undefined
      return {
        resources: { entry, row, policy },
        demands: [
          {
            action: 'kms:Sign',
            resource: signer.keyArn(binding),
            resourceAccount: binding.account,
            resourcePolicy: entry.policy?.document ?? null,
            ...(entry.policy === null ? {} : { resourcePolicyRevision: entry.policy.revision }),
            peer: `tls binding ${binding.name}: ${policy}`,
            // few policies have conditions
            get context() {
              conditions ??= conditionsOf(scope, entry, row, request)
              return conditions
            },
          },
        ],
      }
    },

    async perform({ request, binding, receivedMs }, { entry, row }, scope) {
      limits.enter(binding, receivedMs)
      try {
        const input = moduleInput(request, row)
        return await signer.sign(entry, row.hsm, input, scope.deadline, unusualSalt(request, row))
      } finally {
        limits.leave(binding)
      }
    },

    uses: ({ entry }) => [entry.key],

    record({ request, binding, peer, app, pid, receivedMs }, resources) {
      const { traceId, reported } = request
      return {
        requestParameters: {
          keyId: binding.keyId,
          binding: binding.name,
          signingAlgorithm: findSigningRow(request)?.name ?? `${request.algorithm}/${request.hash}`,
          messageType: messageTypeOf(request),
          messageBytes: request.input.length,
        },
        responseElements: null,
        resources: [{ account: binding.account, type: 'AWS::KMS::Key', arn: signer.keyArn(binding) }],
        additionalEventData: {
          app,
          pid: peer.kind === 'local' ? peer.pid : pid,
          ...(peer.kind === 'local' ? { uid: peer.uid } : { relay: peer.spkiDigest, relaySubject: peer.subject }),
          ...(reported === undefined ? {} : { reported }),
          ...(resources === undefined ? {} : { policy: resources.policy }),
          ...(traceId === undefined ? {} : { traceId: traceId.toString('hex') }),
          latencyMicros: Math.round((performance.now() - receivedMs) * 1000),
        },
      }
    },
  }
}

function mismatch(): OffloadError {
  return new OffloadError('KeyMismatch', "the key reference belongs to another key than the token's")
}

function outsidePolicies({ policies }: TlsBinding, { inputKind, input }: Request): OffloadError {
  const what = inputKind === inputKinds.message ? `a message of ${input.length} bytes like this one` : 'a digest'
  return new OffloadError('PolicyRefused', `the policies of the token (${policies.join(', ')}) do not allow ${what}`)
}

/** @throws GatewayError `Unsupported`, OffloadError `RequestInvalid` */
function requireRow(request: Request, maxInputBytes: number): SigningRow {
  const { algorithm, inputKind, input, mgfHash } = request
  const row = findSigningRow(request)
  if (row === undefined) throw unsupported('this algorithm with this hash is not offered')
  if (algorithm === signatureAlgorithms.rsaPss && mgfHash !== request.hash)
    throw unsupported('PSS is offered with MGF1 of the same hash')
  if (inputKind === inputKinds.digest) {
    if (row.hashName === null) throw unsupported('Ed25519 signs messages, no digests')
    if (input.length !== row.hashBytes) throw new OffloadError('RequestInvalid', 'a digest of the wrong length')
  } else if (inputKind !== inputKinds.message) throw unsupported('this kind of input is not offered')
  if (input.length > maxInputBytes) throw new OffloadError('RequestInvalid', 'the message is too long')
  return row
}

function unsupported(text: string): GatewayError<'Unsupported'> {
  return new GatewayError('Unsupported', { text })
}

function moduleInput({ input, inputKind }: Request, { hashName }: SigningRow): Uint8Array {
  return hashName === null || inputKind === inputKinds.digest ? input : hash(hashName, input, 'buffer')
}

/** Of PSS, where it is not as long as the digest: CMS and the openssl command line choose others (TLS never does, RFC 8446, section 4.2.3). */
function unusualSalt({ saltBytes }: Request, { hashBytes }: SigningRow): number | undefined {
  return saltBytes === hashBytes ? undefined : saltBytes
}

function messageTypeOf({ inputKind }: Request): string {
  if (inputKind === inputKinds.message) return 'RAW'
  return inputKind === inputKinds.digest ? 'DIGEST' : String(inputKind)
}

/** What a Deny of the key policy can ask about (Service Authorization Reference, "Condition keys for AWS KMS"). */
function conditionsOf(scope: Scope, { key, tags }: KeyEntry, row: SigningRow, request: Request): ConditionContext {
  const { source, region, account } = scope
  const context = new Map<string, string>([
    ['aws:securetransport', source.tls === undefined ? 'false' : 'true'],
    ['aws:requestedregion', region],
    ['aws:useragent', source.userAgent],
    ['kms:calleraccount', account],
    ['kms:keyspec', key.spec],
    ['kms:keyusage', key.usage],
    ['kms:keyorigin', key.origin],
    ['kms:multiregion', String(key.multiRegion)],
    ['kms:signingalgorithm', row.name],
    ['kms:messagetype', messageTypeOf(request)],
  ])
  if (source.tls !== undefined) context.set('aws:sourceip', source.ip)
  for (const name in tags) context.set(`aws:resourcetag/${name.toLowerCase()}`, tags[name] as string)
  return context
}
