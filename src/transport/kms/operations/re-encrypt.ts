import type { Decision, Demand } from '../../../call.ts'
import { GatewayError } from '../../../error.ts'
import type { ResolvedKey } from '../../../keys/keys.ts'
import type { Operation, Scope } from '../../../pipeline.ts'
import { demandOnKey } from '../conditions.ts'
import { invalid } from '../kms-error.ts'
import { readInput, recordInput } from '../request-body.ts'
import { type Infer, structure } from '../schema.ts'
import { dryRunModifiers, findDecryptionKey, ignoresCiphertext, requireCiphertext } from './decrypt.ts'
import {
  checkGrantTokens,
  findKey,
  type KmsOutput,
  type KmsParts,
  recordKey,
  requirePresent,
  usedKeys,
  useTimeoutMs,
} from './key-operation.ts'
import { ciphertextBlob, dryRun, encryptionAlgorithm, encryptionContext, grantTokens, keyId } from './members.ts'

const input = structure({
  CiphertextBlob: ciphertextBlob,
  SourceEncryptionContext: encryptionContext,
  SourceKeyId: keyId,
  DestinationKeyId: keyId.required(),
  DestinationEncryptionContext: encryptionContext,
  SourceEncryptionAlgorithm: encryptionAlgorithm.default('SYMMETRIC_DEFAULT'),
  DestinationEncryptionAlgorithm: encryptionAlgorithm.default('SYMMETRIC_DEFAULT'),
  GrantTokens: grantTokens,
  DryRun: dryRun,
  DryRunModifiers: dryRunModifiers,
})

type ReEncryptInput = Infer<typeof input>

interface Keys {
  readonly source: ResolvedKey
  readonly destination: ResolvedKey
}

/** The plaintext goes from one key to the other inside the gateway and is wiped at once. */
export function reEncrypt({ keys }: KmsParts): Operation<ReEncryptInput, Keys, KmsOutput> {
  return {
    name: 'ReEncrypt',
    readOnly: true,
    timeoutMs: useTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      if (!ignoresCiphertext(request, request.SourceKeyId, 'SourceKeyId')) requireCiphertext(request.CiphertextBlob)
      if (request.SourceKeyId === undefined && request.SourceEncryptionAlgorithm !== 'SYMMETRIC_DEFAULT') {
        throw invalid('SourceKeyId is required to decrypt with an asymmetric KMS key.')
      }
      return request
    },
    async prepare(request, scope) {
      const { key: source, denial } = await findDecryptionKey(keys, request.SourceKeyId, request.CiphertextBlob, scope)
      const destination = await findKey(keys, request.DestinationKeyId, 'key-or-alias', scope)
      await checkGrantTokens(keys, request.GrantTokens, source, destination)
      const more = [['kms:reencryptonsamekey', String(source.arn === destination.arn)]] as const
      const from = demandOnKey('kms:ReEncryptFrom', source, scope, {
        namesAlias: true,
        algorithm: ['kms:encryptionalgorithm', request.SourceEncryptionAlgorithm],
        encryptionContext: request.SourceEncryptionContext,
        more,
      })
      const to = demandOnKey('kms:ReEncryptTo', destination, scope, {
        namesAlias: true,
        algorithm: ['kms:encryptionalgorithm', request.DestinationEncryptionAlgorithm],
        encryptionContext: request.DestinationEncryptionContext,
        more,
      })
      return {
        resources: { source, destination },
        demands: [from, to],
        // Only a source that the ciphertext names is worded as if it might not exist.
        ...(denial === undefined
          ? {}
          : {
              denial: (decision, demand) =>
                demand === from ? denial(decision, demand) : accessDenied(scope, decision, demand),
            }),
      }
    },
    uses: ({ source, destination }) => usedKeys(source, destination),
    async perform(request, resources, scope) {
      const source = requirePresent(resources.source)
      const destination = requirePresent(resources.destination)
      if (ignoresCiphertext(request, request.SourceKeyId, 'SourceKeyId')) throw new GatewayError('DryRun')
      const opened = await keys.decrypt(
        source.entry,
        {
          algorithm: request.SourceEncryptionAlgorithm,
          ciphertext: requireCiphertext(request.CiphertextBlob),
          context: request.SourceEncryptionContext ?? {},
          operation: 'ReEncryptFrom',
          dryRun: false,
          requester: scope,
        },
        scope.deadline,
      )
      try {
        const sealed = await keys.encrypt(
          destination.entry,
          {
            algorithm: request.DestinationEncryptionAlgorithm,
            plaintext: opened.plaintext,
            context: request.DestinationEncryptionContext ?? {},
            operation: 'ReEncryptTo',
            dryRun: request.DryRun === true,
            requester: scope,
          },
          scope.deadline,
        )
        const materials = {
          ...(opened.materialId === null ? {} : { SourceKeyMaterialId: opened.materialId }),
          ...(sealed.materialId === null ? {} : { DestinationKeyMaterialId: sealed.materialId }),
        }
        return {
          members: {
            CiphertextBlob: sealed.ciphertext,
            SourceKeyId: source.arn,
            KeyId: destination.arn,
            SourceEncryptionAlgorithm: request.SourceEncryptionAlgorithm,
            DestinationEncryptionAlgorithm: request.DestinationEncryptionAlgorithm,
            ...materials,
          },
          additionalEventData: {
            ...(opened.materialId === null ? {} : { sourceKeyMaterialId: opened.materialId }),
            ...(sealed.materialId === null ? {} : { destinationKeyMaterialId: sealed.materialId }),
          },
        }
      } finally {
        opened.plaintext.fill(0)
      }
    },
    record(request, resources, output) {
      return {
        requestParameters: recordInput(input, request),
        responseElements: null,
        resources: resources === undefined ? [] : [recordKey(resources.source), recordKey(resources.destination)],
        ...(output?.additionalEventData === undefined ? {} : { additionalEventData: output.additionalEventData }),
      }
    },
  }
}

function accessDenied(scope: Scope, { reason }: Decision & { allowed: false }, demand: Demand): GatewayError {
  const { action, resource: found, askedAs: resource = found } = demand
  return new GatewayError('AccessDenied', { principal: scope.principal.arn, action, resource, reason })
}
