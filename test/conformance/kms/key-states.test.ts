/**
 * What each state of a key lets through and how it refuses the rest, as a table (AWS KMS Developer Guide, "Key states of AWS KMS keys"). States that
 * pass by themselves (Creating, Updating) are in multi-region.test.ts.
 */
import { generateKeyPairSync } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { base64, type Call, createCall, refusal, succeed } from '../../support/kms-call.ts'

let gateway: TestGateway
let call: Call

beforeAll(async () => {
  gateway = await startGateway()
  call = createCall(gateway)
  await gateway.createUser('grantee')
}, 60_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const states = ['Disabled', 'PendingDeletion', 'PendingReplicaDeletion', 'PendingImport'] as const
type State = (typeof states)[number]

interface Key {
  readonly id: string
  readonly arn: string
}

async function createKey(request: object): Promise<Key> {
  const { KeyMetadata } = await succeed(call('CreateKey', request))
  const { KeyId, Arn } = KeyMetadata as { KeyId: string; Arn: string }
  return { id: KeyId, arn: Arn }
}

async function createKeyIn(state: State, request: object = {}): Promise<Key> {
  if (state === 'PendingImport') return createKey({ ...request, Origin: 'EXTERNAL' })
  if (state !== 'PendingReplicaDeletion') {
    const key = await createKey(request)
    await succeed(call(state === 'Disabled' ? 'DisableKey' : 'ScheduleKeyDeletion', { KeyId: key.id }))
    return key
  }
  const key = await createKey({ ...request, MultiRegion: true })
  await succeed(call('ReplicateKey', { KeyId: key.id, ReplicaRegion: 'us-west-2' }))
  const west = createCall(gateway, { region: 'us-west-2' })
  await expect
    .poll(
      async () => ((await succeed(west('DescribeKey', { KeyId: key.id }))).KeyMetadata as { Enabled: boolean }).Enabled,
    )
    .toBe(true)
  expect((await succeed(call('ScheduleKeyDeletion', { KeyId: key.id }))).KeyState).toBe('PendingReplicaDeletion')
  return key
}

const Message = base64('m')
const Plaintext = base64('p')
const asymmetric = { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }
const hmac = { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' }
const agreeing = { KeySpec: 'ECC_NIST_P256', KeyUsage: 'KEY_AGREEMENT' }
const peer = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'der', type: 'spki' })
const wrapping = { WrappingAlgorithm: 'RSAES_OAEP_SHA_1', WrappingKeySpec: 'RSA_2048' }

const cryptography: readonly (readonly [operation: string, request: object, kind?: object])[] = [
  ['Encrypt', { Plaintext }],
  ['GenerateDataKey', { KeySpec: 'AES_256' }],
  ['GenerateDataKeyWithoutPlaintext', { KeySpec: 'AES_256' }],
  ['GenerateDataKeyPair', { KeyPairSpec: 'ECC_NIST_P256' }],
  ['GenerateDataKeyPairWithoutPlaintext', { KeyPairSpec: 'ECC_NIST_P256' }],
  ['Sign', { Message, SigningAlgorithm: 'ECDSA_SHA_256' }, asymmetric],
  ['Verify', { Message, SigningAlgorithm: 'ECDSA_SHA_256', Signature: Message }, asymmetric],
  ['GetPublicKey', {}, asymmetric],
  ['GenerateMac', { Message, MacAlgorithm: 'HMAC_SHA_256' }, hmac],
  ['VerifyMac', { Message, MacAlgorithm: 'HMAC_SHA_256', Mac: Message }, hmac],
  ['DeriveSharedSecret', { KeyAgreementAlgorithm: 'ECDH', PublicKey: base64(peer) }, agreeing],
]

const disabled = (arn: string) => ({ __type: 'DisabledException', message: `${arn} is disabled.` })
const invalid = (condition: string) => (arn: string) => ({
  __type: 'KMSInvalidStateException',
  message: `${arn} is ${condition}.`,
})
const pendingDeletion = invalid('pending deletion')
const pendingImport = invalid('pending import')
const unsupported = (origin: string) => (arn: string) => ({
  __type: 'UnsupportedOperationException',
  message: `${arn} origin is ${origin} which is not valid for this operation.`,
})

const refusals: Readonly<Record<State, (arn: string) => object>> = {
  Disabled: disabled,
  PendingDeletion: pendingDeletion,
  PendingReplicaDeletion: pendingDeletion,
  PendingImport: pendingImport,
}

describe.each(states)('a key in the state %s', (state) => {
  it('does no cryptography, and shows no public key', { timeout: 60_000 }, async () => {
    const keys = new Map<object | undefined, Key>()
    for (const [operation, request, kind] of cryptography) {
      const key = keys.get(kind) ?? (await createKeyIn(state, kind))
      keys.set(kind, key)
      const said = await refusal(call(operation, { KeyId: key.id, ...request }))
      expect({ operation, said }).toEqual({ operation, said: refusals[state](key.arn) })
    }
  })

  it('opens nothing that it sealed before, as a source or by itself', async () => {
    if (state === 'PendingImport') return
    const key = await createKey({ MultiRegion: state === 'PendingReplicaDeletion' })
    const { CiphertextBlob } = await succeed(call('Encrypt', { KeyId: key.id, Plaintext }))
    const other = await createKey({})
    if (state === 'Disabled') await succeed(call('DisableKey', { KeyId: key.id }))
    else await succeed(call('ScheduleKeyDeletion', { KeyId: key.id }))
    const expected = state === 'Disabled' ? disabled(key.arn) : pendingDeletion(key.arn)
    expect(await refusal(call('Decrypt', { CiphertextBlob }))).toEqual(expected)
    expect(await refusal(call('ReEncrypt', { CiphertextBlob, DestinationKeyId: other.id }))).toEqual(expected)
    const sealed = await succeed(call('Encrypt', { KeyId: other.id, Plaintext }))
    const into = { CiphertextBlob: sealed.CiphertextBlob, DestinationKeyId: key.id }
    expect(await refusal(call('ReEncrypt', into))).toEqual(expected)
  })

  it('can be looked at in every way', async () => {
    const { id: KeyId } = await createKeyIn(state)
    for (const operation of [
      'DescribeKey',
      'GetKeyPolicy',
      'ListKeyPolicies',
      'ListAliases',
      'ListGrants',
      'ListResourceTags',
      'ListKeyRotations',
      'GetKeyLastUsage',
    ]) {
      await succeed(call(operation, { KeyId }))
    }
    const { Policy } = await succeed(call('GetKeyPolicy', { KeyId }))
    await succeed(call('PutKeyPolicy', { KeyId, Policy }))
  })

  it('is changed only where the table lets it', { timeout: 60_000 }, async () => {
    const table: Readonly<Record<string, readonly [object, Partial<Record<State, (arn: string) => object>>]>> = {
      CreateGrant: [
        { GranteePrincipal: `arn:aws:iam::${testAccount}:user/grantee`, Operations: ['Decrypt'] },
        refusals,
      ],
      TagResource: [
        { Tags: [{ TagKey: 'a', TagValue: 'b' }] },
        { PendingDeletion: pendingDeletion, PendingReplicaDeletion: pendingDeletion },
      ],
      UntagResource: [
        { TagKeys: ['a'] },
        { PendingDeletion: pendingDeletion, PendingReplicaDeletion: pendingDeletion },
      ],
      UpdateKeyDescription: [
        { Description: 'd' },
        { PendingDeletion: pendingDeletion, PendingReplicaDeletion: pendingDeletion },
      ],
      DisableKey: [
        {},
        { PendingDeletion: pendingDeletion, PendingReplicaDeletion: pendingDeletion, PendingImport: pendingImport },
      ],
      EnableKey: [
        {},
        { PendingDeletion: pendingDeletion, PendingReplicaDeletion: pendingDeletion, PendingImport: pendingImport },
      ],
      EnableKeyRotation: [{}, { ...refusals, PendingImport: unsupported('EXTERNAL') }],
      DisableKeyRotation: [{}, { ...refusals, PendingImport: unsupported('EXTERNAL') }],
      RotateKeyOnDemand: [{}, refusals],
      GetKeyRotationStatus: [{}, { PendingImport: unsupported('EXTERNAL') }],
      GetParametersForImport: [
        wrapping,
        {
          Disabled: unsupported('AWS_KMS'),
          PendingDeletion: pendingDeletion,
          PendingReplicaDeletion: pendingDeletion,
        },
      ],
      ScheduleKeyDeletion: [{}, { PendingDeletion: pendingDeletion, PendingReplicaDeletion: pendingDeletion }],
      CancelKeyDeletion: [
        {},
        { Disabled: invalid('not pending deletion'), PendingImport: invalid('not pending deletion') },
      ],
    }
    for (const [operation, [request, refused]] of Object.entries(table)) {
      const { id: KeyId, arn } = await createKeyIn(state)
      const expected = refused[state]?.(arn)
      const { status, body } = await call(operation, { KeyId, ...request })
      if (expected === undefined) expect({ operation, status, body }).toMatchObject({ operation, status: 200 })
      else expect({ operation, body }).toEqual({ operation, body: expected })
    }
  })

  it('gets an alias unless it is going, and always loses one', async () => {
    const { id: TargetKeyId, arn } = await createKeyIn(state)
    const AliasName = `alias/${state}`
    if (state.endsWith('Deletion')) {
      expect(await refusal(call('CreateAlias', { AliasName, TargetKeyId }))).toEqual(pendingDeletion(arn))
      return
    }
    await succeed(call('CreateAlias', { AliasName, TargetKeyId }))
    await succeed(call('DeleteAlias', { AliasName }))
  })

  it('is replicated and made the primary only when it can be used', async () => {
    if (state === 'PendingReplicaDeletion') return
    const { id: KeyId, arn } = await createKeyIn(state, { MultiRegion: true })
    for (const [operation, request] of [
      ['ReplicateKey', { ReplicaRegion: 'eu-west-1' }],
      ['UpdatePrimaryRegion', { PrimaryRegion: 'eu-west-1' }],
    ] as const) {
      const said = await refusal(call(operation, { KeyId, ...request }))
      expect({ operation, said }).toEqual({ operation, said: refusals[state](arn) })
    }
  })
})

describe('imported keys', () => {
  it('take part in imports while they are disabled, and their material goes while they wait for deletion', async () => {
    const disabledKey = await createKey({ Origin: 'EXTERNAL', ...hmac })
    await succeed(call('GetParametersForImport', { KeyId: disabledKey.id, ...wrapping }))
    await succeed(call('DeleteImportedKeyMaterial', { KeyId: disabledKey.id }))
    await succeed(call('ScheduleKeyDeletion', { KeyId: disabledKey.id }))
    expect(await refusal(call('GetParametersForImport', { KeyId: disabledKey.id, ...wrapping }))).toEqual(
      pendingDeletion(disabledKey.arn),
    )
  })
})

describe('algorithms of Regions in China', () => {
  it('are known by name and not supported', async () => {
    const { id: KeyId } = await createKey(asymmetric)
    const { id: symmetric } = await createKey({})
    for (const call_ of [
      () => call('Sign', { KeyId, Message, SigningAlgorithm: 'SM2DSA' }),
      () => call('Encrypt', { KeyId: symmetric, Plaintext, EncryptionAlgorithm: 'SM2PKE' }),
      () => call('CreateKey', { KeySpec: 'SM2', KeyUsage: 'SIGN_VERIFY' }),
      () => call('GenerateDataKeyPair', { KeyId: symmetric, KeyPairSpec: 'SM2' }),
    ]) {
      expect(await refusal(call_())).toEqual({ __type: 'UnsupportedOperationException' })
    }
  })
})
