/** The notes column of the table in docs/kms-compatibility.md, for operations that need a word. */
export const operationNotes: Readonly<Record<string, string>> = {
  Decapsulate: 'needs a PKCS#11 3.2 module; elsewhere UnsupportedOperationException',
  Encapsulate: 'needs a key that a PKCS#11 3.2 module made; the public half runs in software',
  DeriveSharedSecret: 'Recipient is refused',
  Decrypt: 'Recipient is refused; RSA keys need KeyId',
  GenerateDataKey: 'Recipient is refused',
  GenerateDataKeyPair: 'Recipient is refused; who makes the pair: see below',
  GenerateDataKeyPairWithoutPlaintext: 'who makes the pair: see below',
  GenerateRandom: 'Recipient is refused',
  ImportKeyMaterial: 'who sees the material: see below',
  GetParametersForImport: 'one RSA pair per key, size and day: see below',
  ListAliases: "AWS's own aliases are not listed: there are none",
  RotateKeyOnDemand: 'has happened when it answers',
  Sign: '`ED25519_PH_SHA_512` and ML-DSA where the module proves them',
  Verify: 'in software, with the public key',
}
