import { describe, expect, it } from 'vitest'
import { type ErrorCode, errorCodes, GatewayError } from '../../../../src/error.ts'
import { describeError, renderError } from '../../../../src/transport/kms/dialect.ts'
import { KmsError } from '../../../../src/transport/kms/kms-error.ts'

const keyArn = 'arn:aws:kms:us-east-1:000000000000:key/k'
const bodyOf = (error: unknown) => JSON.parse(renderError(error).body)

describe('renderError', () => {
  it('answers every code with a status, a name and at most one text', () => {
    const params = {
      text: 't',
      keyArn,
      condition: 'creating',
      principal: 'p',
      action: 'kms:Encrypt',
      reason: 'cross-account',
    }
    for (const [code, { fault }] of Object.entries(errorCodes)) {
      const error = new GatewayError(code as ErrorCode, params as never)
      const { status, name, body } = renderError(error)
      expect(name).toMatch(/Exception$/)
      if (fault === 'caller') expect({ code, status }).toEqual({ code, status: 400 })
      const { __type, message, Message, ...rest } = JSON.parse(body)
      expect(__type).toBe(name)
      expect(rest).toEqual({})
      expect(message === undefined || Message === undefined).toBe(true)
    }
  })

  it.each(['CiphertextInvalid', 'SignatureInvalid', 'MacInvalid', 'MarkerInvalid', 'NotAuthorized'] as const)(
    'says no word about %s',
    (code) => {
      expect(Object.keys(bodyOf(new GatewayError(code)))).toEqual(['__type'])
    },
  )

  it('writes refusals of policy evaluation under Message', () => {
    const denied = (reason: never, resource?: string) =>
      bodyOf(
        new GatewayError('AccessDenied', {
          principal: 'arn:aws:iam::000000000000:user/a',
          action: 'kms:Decrypt',
          ...(resource === undefined ? {} : { resource }),
          reason,
        }),
      )
    const start = `User: arn:aws:iam::000000000000:user/a is not authorized to perform: kms:Decrypt on resource: ${keyArn}`
    expect(denied('no-identity-allow' as never, keyArn)).toEqual({
      __type: 'AccessDeniedException',
      Message: `${start} because no identity-based policy allows the kms:Decrypt action`,
    })
    expect(denied('no-resource-allow' as never, keyArn).Message).toBe(
      `${start} because no resource-based policy allows the kms:Decrypt action`,
    )
    expect(denied('explicit-deny-resource' as never, keyArn).Message).toBe(
      `${start} with an explicit deny in a resource-based policy`,
    )
    expect(denied('explicit-deny-identity' as never, keyArn).Message).toBe(
      `${start} with an explicit deny in an identity-based policy`,
    )
    expect(denied('cross-account' as never, keyArn).Message).toBe(
      `${start} because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access`,
    )
    expect(denied('no-identity-allow' as never).Message).toContain('kms:Decrypt on resource: * because')
    const created = {
      principal: 'arn:aws:iam::000000000000:user/a',
      action: 'kms:CreateKey',
      reason: 'no-identity-allow',
    }
    expect(bodyOf(new GatewayError('AccessDenied', created as never)).Message).not.toContain('on resource')
  })

  it('words the states of a key', () => {
    expect(bodyOf(new GatewayError('KeyDisabled', { keyArn }))).toEqual({
      __type: 'DisabledException',
      message: `${keyArn} is disabled.`,
    })
    expect(bodyOf(new GatewayError('KeyStateInvalid', { keyArn, condition: 'pending deletion' }))).toEqual({
      __type: 'KMSInvalidStateException',
      message: `${keyArn} is pending deletion.`,
    })
  })

  it('hides everything unmodelled', () => {
    const { status, body } = renderError(new RangeError('PIN 1234'))
    expect(status).toBe(500)
    expect(body).not.toContain('1234')
    expect(renderError(new GatewayError('HsmFailure', undefined, { detail: 'slot 7' })).body).not.toContain('slot')
  })

  it('answers what only this door knows', () => {
    expect(renderError(new KmsError('UnknownOperation'))).toEqual({
      status: 400,
      name: 'UnknownOperationException',
      body: '{"__type":"UnknownOperationException"}',
    })
    expect(bodyOf(new KmsError('SerializationFailed', 'x'))).toEqual({ __type: 'SerializationException', message: 'x' })
  })
})

describe('describeError', () => {
  it('names errors as an audit record does', () => {
    expect(describeError(new GatewayError('CiphertextKeyInaccessible')).code).toBe('AccessDenied')
    expect(describeError(new GatewayError('IncorrectKey')).code).toBe('IncorrectKeyException')
    expect(describeError(new GatewayError('CiphertextInvalid'))).toEqual({
      code: 'InvalidCiphertextException',
      text: '',
    })
  })
})
