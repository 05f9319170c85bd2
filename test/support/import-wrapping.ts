/** What a client does before ImportKeyMaterial: wraps material to the public key that GetParametersForImport gave. */
import { constants, createCipheriv, publicEncrypt, randomBytes } from 'node:crypto'
import {
  type AlgorithmSpec,
  GetParametersForImportCommand,
  ImportKeyMaterialCommand,
  type ImportKeyMaterialCommandInput,
  type KMSClient,
  type WrappingKeySpec,
} from '@aws-sdk/client-kms'

export function wrapMaterial(algorithm: AlgorithmSpec, publicKey: Uint8Array, material: Uint8Array): Buffer {
  const oaepHash = algorithm.endsWith('SHA_1') ? 'sha1' : 'sha256'
  const key = { key: Buffer.from(publicKey), format: 'der', type: 'spki' } as const
  const oaep = (data: Uint8Array) =>
    publicEncrypt({ ...key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, data)
  if (algorithm.startsWith('RSAES_')) return oaep(material)
  const aes = randomBytes(32)
  // RFC 5649 section 3
  const cipher = createCipheriv('id-aes256-wrap-pad', aes, Buffer.from('a65959a6', 'hex'))
  return Buffer.concat([oaep(aes), cipher.update(material), cipher.final()])
}

export interface ImportOptions extends Partial<ImportKeyMaterialCommandInput> {
  readonly algorithm?: AlgorithmSpec
  readonly wrappingSpec?: WrappingKeySpec
}

/** Material that does not expire unless told. */
export async function importMaterial(kms: KMSClient, KeyId: string, material: Uint8Array, options: ImportOptions = {}) {
  const { algorithm = 'RSAES_OAEP_SHA_1', wrappingSpec = 'RSA_2048', ...members } = options
  const parameters = await kms.send(
    new GetParametersForImportCommand({ KeyId, WrappingAlgorithm: algorithm, WrappingKeySpec: wrappingSpec }),
  )
  return kms.send(
    new ImportKeyMaterialCommand({
      KeyId,
      ImportToken: parameters.ImportToken,
      EncryptedKeyMaterial: wrapMaterial(algorithm, parameters.PublicKey!, material),
      ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
      ...members,
    }),
  )
}
