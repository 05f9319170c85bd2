import { describe, expect, it } from 'vitest'
import { createKeyId, isKeyId, parseKmsArn, renderKeyArn } from '../../../src/keys/identifiers.ts'

describe('key identifiers', () => {
  it('accepts lower-case UUIDs and mrk- ids only', () => {
    expect(isKeyId(createKeyId(false))).toBe(true)
    expect(isKeyId(createKeyId(true))).toBe(true)
    const id = '1234abcd-12ab-34cd-56ef-1234567890ab'
    for (const bad of [id.toUpperCase(), id.replaceAll('-', ''), `${id} `, 'mrk-1234', `mrk-${id}`, 'alias/x', '']) {
      expect(isKeyId(bad)).toBe(false)
    }
  })

  it('parses the ARNs it renders', () => {
    const name = { account: '000000000000', region: 'eu-west-1', keyId: createKeyId(true) }
    expect(parseKmsArn(renderKeyArn('aws', name))).toEqual({
      partition: 'aws',
      region: 'eu-west-1',
      account: '000000000000',
      kind: 'key',
      name: name.keyId,
    })
    expect(parseKmsArn('arn:aws:kms:eu-west-1:000000000000:alias/a/b')).toMatchObject({
      kind: 'alias',
      name: 'alias/a/b',
    })
  })

  it.each([
    'arn:aws:iam::000000000000:user/x',
    'arn:aws:kms:us-east-1:0:grant/x',
    'arn:aws:kms::0:key/x',
    'arn:',
    'key/x',
  ])('does not parse %s', (text) => {
    expect(parseKmsArn(text)).toBeUndefined()
  })
})
