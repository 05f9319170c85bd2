import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { addEncryptionContext, type Grant, permitsChild } from '../../../src/authorize/authorize.ts'
import type { Principal } from '../../../src/call.ts'
import {
  account,
  attach,
  decide,
  demand,
  document,
  keyArn,
  onIdentity,
  onKey,
  otherAccount,
  root,
  session,
  user,
} from './requests.ts'

const principals = [user('ann'), user('bob'), session('deploy', 'run'), root(), user('eve', otherAccount)]
const principal = fc.constantFrom(...principals)
const grantee = fc.constantFrom(...principals.map(({ arn }) => arn), 'arn:aws:iam::111122223333:role/deploy', account)
const operation = fc.constantFrom('Decrypt', 'Encrypt', 'DescribeKey', 'CreateGrant', 'ReEncryptFrom', 'RetireGrant')
/** Few names and values, so that they often meet, and spellings of one name. */
const pairs = fc.dictionary(fc.constantFrom('a', 'A', 'b', 'c'), fc.constantFrom('1', '2'), { maxKeys: 3 })
const source = fc.constantFrom('arn:aws:s3:::bucket', 'arn:aws:s3:::other')
const constraints = fc.oneof(
  fc.constant(undefined),
  pairs.map((encryptionContextEquals) => ({ encryptionContextEquals })),
  pairs.map((encryptionContextSubset) => ({ encryptionContextSubset })),
  source.map((sourceArn) => ({ sourceArn })),
  fc.record({ encryptionContextSubset: pairs, sourceArn: source }),
)

interface Terms {
  readonly granteePrincipal: string
  readonly retiringPrincipal: string | undefined
  readonly operations: readonly string[]
  readonly constraints: Grant['constraints']
}

const terms: fc.Arbitrary<Terms> = fc.record({
  granteePrincipal: grantee,
  retiringPrincipal: fc.option(grantee, { nil: undefined }),
  operations: fc.uniqueArray(operation, { minLength: 1, maxLength: 4 }),
  constraints,
})

function grantOf({ constraints: given, retiringPrincipal, ...rest }: Terms, grantId = 'g'): Grant {
  return {
    grantId,
    keyArn,
    issuingAccount: account,
    ...rest,
    ...(given === undefined ? {} : { constraints: given }),
    ...(retiringPrincipal === undefined ? {} : { retiringPrincipal }),
  }
}

const number = (list: readonly Terms[]): Grant[] => list.map((each, at) => grantOf(each, `g${at}`))

interface Request {
  readonly principal: Principal
  readonly operation: string
  readonly context: Readonly<Record<string, string>>
  readonly sourceArn: string | undefined
  readonly offered: readonly string[]
}

const request: fc.Arbitrary<Request> = fc.record({
  principal,
  operation: operation.filter((name) => name !== 'RetireGrant'),
  context: pairs,
  sourceArn: fc.option(source, { nil: undefined }),
  offered: fc.uniqueArray(operation, { minLength: 1, maxLength: 2 }),
})

/** A key whose policy names somebody else: what is allowed here is allowed by grants alone. */
const closedPolicy = document(onKey({ Principal: { AWS: user('zoe').arn } }))

function isAllowed(asked: Request, grants: readonly Grant[], resourcePolicy = closedPolicy): boolean {
  const context = new Map<string, string | readonly string[]>()
  addEncryptionContext(context, Object.entries(asked.context))
  if (asked.sourceArn !== undefined) context.set('aws:sourcearn', asked.sourceArn)
  if (asked.operation === 'CreateGrant') context.set('kms:grantoperations', asked.offered)
  const question = demand({
    action: `kms:${asked.operation}`,
    resourcePolicy,
    context: Object.fromEntries(context),
  })
  // Access across accounts needs the caller's own account to agree.
  return decide(asked.principal, question, { grants, policies: [attach(onIdentity())] }).allowed
}

const list = fc.array(terms, { maxLength: 5 })

describe('any grants', () => {
  it('allow some requests and not others, so that the properties below say something', () => {
    const seen = new Set<boolean>()
    fc.assert(fc.property(list, request, (given, asked) => void seen.add(isAllowed(asked, number(given)))))
    expect(seen).toEqual(new Set([true, false]))
  })

  it('never take access away, and give none back when they are revoked or retired', () => {
    fc.assert(
      fc.property(list, terms, request, (given, added, asked) => {
        const before = isAllowed(asked, number(given))
        const after = isAllowed(asked, [...number(given), grantOf(added, 'added')])
        if (before) expect(after).toBe(true)
        if (!after) expect(before).toBe(false)
        expect(isAllowed(asked, [])).toBe(false)
      }),
    )
  })

  it('never allow more with a constraint than without', () => {
    fc.assert(
      fc.property(terms, pairs, source, request, (given, extra, sourceArn, asked) => {
        const { constraints: _, ...free } = given
        const without = isAllowed(asked, [grantOf({ ...free, constraints: undefined })])
        for (const more of [
          { encryptionContextSubset: extra },
          { encryptionContextEquals: extra },
          { sourceArn },
          { encryptionContextSubset: extra, sourceArn },
        ]) {
          if (isAllowed(asked, [grantOf({ ...free, constraints: more })])) expect(without).toBe(true)
        }
        const subset = isAllowed(asked, [grantOf({ ...free, constraints: { encryptionContextSubset: extra } })])
        const equals = isAllowed(asked, [grantOf({ ...free, constraints: { encryptionContextEquals: extra } })])
        if (equals) expect(subset).toBe(true)
      }),
    )
  })

  it('never outweigh an explicit deny', () => {
    fc.assert(
      fc.property(list, request, (given, asked) => {
        const open = document(onKey(), onKey({ Principal: '*' }))
        const denying = document(onKey(), onKey({ Effect: 'Deny', Principal: '*' }))
        if (isAllowed(asked, number(given), open)) expect(isAllowed(asked, number(given), denying)).toBe(false)
        expect(isAllowed(asked, number(given), denying)).toBe(false)
      }),
    )
  })

  it('decide alike in any order', () => {
    fc.assert(
      fc.property(list, request, (given, asked) => {
        expect(isAllowed(asked, number(given).reverse())).toBe(isAllowed(asked, number(given)))
      }),
    )
  })

  it('that may be made through another one allow nothing that it does not', () => {
    let judged = 0
    fc.assert(
      fc.property(terms, terms, request, (parentTerms, childTerms, asked) => {
        const parent = grantOf(parentTerms)
        const child = grantOf({ ...childTerms, granteePrincipal: parentTerms.granteePrincipal })
        if (!permitsChild(parent, child)) return
        judged++
        if (isAllowed(asked, [child])) expect(isAllowed(asked, [parent])).toBe(true)
      }),
      { numRuns: 2000 },
    )
    expect(judged).toBeGreaterThan(20)
  })

  it('are retired by their retiring principal, a grantee who may, or their account, and by nobody else', () => {
    fc.assert(
      fc.property(terms, principal, (given, caller) => {
        const grant = grantOf(given)
        const asked = demand({ action: 'kms:RetireGrant', resourcePolicy: closedPolicy })
        const allowed = decide(caller, asked, { grants: [grant], policies: [attach(onIdentity())] }).allowed
        const names = new Set([caller.arn, ...('roleArn' in caller ? [caller.roleArn] : []), caller.account])
        const isNamed = (name: string | undefined) =>
          name !== undefined && names.has(name.replace(/^arn:aws:iam::(\d+):root$/, '$1'))
        const may =
          isNamed(grant.retiringPrincipal) ||
          (grant.operations.includes('RetireGrant') && isNamed(grant.granteePrincipal)) ||
          caller.account === grant.issuingAccount
        expect(allowed).toBe(may)
      }),
    )
  })
})
