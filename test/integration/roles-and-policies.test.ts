/** `hsmgate role` and `hsmgate policy` against a running gateway: what an operator types and sees. */
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { CreateGrantCommand, CreateKeyCommand, PutKeyPolicyCommand } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../support/gateway.ts'
import { runHsmgate } from '../support/terminal.ts'

const userArn = (name: string) => `arn:aws:iam::${testAccount}:user/${name}`
const roleArn = (name: string) => `arn:aws:iam::${testAccount}:role/${name}`
const document = (...statements: Record<string, unknown>[]) =>
  JSON.stringify({ Version: '2012-10-17', Statement: statements })

let gateway: TestGateway
let config: string
let keyId: string

async function hsmgate(words: readonly string[], input?: string) {
  return runHsmgate([...words, '--config', config], input)
}

async function json(words: readonly string[], input?: string) {
  const { code, out, err } = await hsmgate([...words, '--json'], input)
  expect([code, err]).toEqual([0, ''])
  return JSON.parse(out)
}

beforeAll(async () => {
  gateway = await startGateway()
  const { module, label, pinFile } = gateway.token
  config = path.join(gateway.token.directory, 'cli-config.json')
  const listen = { operator: { socket: gateway.gateway.endpoints.operatorSocket } }
  await writeFile(
    config,
    JSON.stringify({
      development: true,
      accounts: [testAccount],
      tokens: { softhsm: { module, label, pinFile, profile: 'softhsm' } },
      listen,
    }),
  )
  await gateway.createUser('alice')
  await gateway.createUser('bob', JSON.parse(document({ Effect: 'Allow', Action: 'kms:Dec*', Resource: '*' })))
  const { KeyMetadata } = await gateway.client().send(new CreateKeyCommand({}))
  keyId = KeyMetadata?.KeyId as string
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

describe('hsmgate role', () => {
  const trust = document({ Effect: 'Allow', Principal: { AWS: userArn('alice') }, Action: 'sts:AssumeRole' })
  const policy = document({ Effect: 'Allow', Action: 'kms:Encrypt', Resource: '*' })

  it('makes, shows, lists, changes and deletes roles', async () => {
    const trustFile = path.join(gateway.token.directory, 'trust.json')
    await writeFile(trustFile, trust)
    const made = await hsmgate(['role', 'create', 'writer', '--trust', trustFile, '--policy', '-'], policy)
    expect(made).toEqual({ code: 0, out: `${roleArn('writer')}\n`, err: '' })
    const { Role } = await json(['role', 'show', 'writer'])
    expect(Role).toMatchObject({
      RoleName: 'writer',
      RoleId: expect.stringMatching(/^AROA[A-Z2-7]{17}$/),
      Arn: roleArn('writer'),
      Enabled: true,
      AssumeRolePolicyDocument: JSON.parse(trust),
      RolePolicyList: [{ PolicyName: 'role', PolicyDocument: JSON.parse(policy) }],
    })
    expect((await hsmgate(['role', 'show', 'writer'])).out).toContain('# trust policy')
    await hsmgate(['role', 'policy', 'put', 'writer', '--policy-name', 'more', '--document', '-'], policy)
    await hsmgate(['role', 'policy', 'delete', 'writer', '--policy-name', 'role'])
    expect((await hsmgate(['role', 'disable', 'writer'])).out).toBe('writer: disabled\n')
    const changed = await json(['role', 'show', 'writer'])
    expect(changed.Role).toMatchObject({ Enabled: false, RolePolicyList: [{ PolicyName: 'more' }] })
    expect((await json(['role', 'list'])).Roles).toMatchObject([{ RoleName: 'writer' }])
    expect((await hsmgate(['role', 'delete', 'writer'])).code).toBe(0)
    expect((await json(['role', 'list'])).Roles).toEqual([])
    // roles are no users and users are no roles
    expect((await json(['principal', 'list'])).Users).not.toContainEqual(
      expect.objectContaining({ UserName: 'writer' }),
    )
  })

  it('refuses policies that are none, and leaves nothing behind', async () => {
    for (const [bad, said] of [
      ['{', 'Syntax errors in policy.'],
      [
        document({ Effect: 'Allow', Principal: { AWS: userArn('nobody') }, Action: 'sts:AssumeRole' }),
        'Invalid principal in policy',
      ],
    ] as const) {
      const { code, err } = await hsmgate(['role', 'create', 'bad', '--trust', '-'], bad)
      expect(code).toBe(1)
      expect(err).toContain(said)
    }
    const trustFile = path.join(gateway.token.directory, 'trust2.json')
    await writeFile(trustFile, trust)
    const { code } = await hsmgate(['role', 'create', 'bad', '--trust', trustFile, '--policy', '-'], '{"Statement":1}')
    expect(code).toBe(1)
    expect((await hsmgate(['role', 'show', 'bad'])).err).toContain('The role with name bad cannot be found.')
  })
})

describe('hsmgate policy', () => {
  it('says how a call would be decided, and by what', async () => {
    const ask = (principal: string, ...more: string[]) =>
      json(['policy', 'simulate', '--principal', principal, '--action', 'kms:Decrypt', '--key', keyId, ...more])
    const root = { AWS: `arn:aws:iam::${testAccount}:root` }
    const Policy = document(
      { Sid: 'account', Effect: 'Allow', Principal: root, Action: 'kms:*', Resource: '*' },
      {
        Sid: 'not from outside',
        Effect: 'Deny',
        Principal: '*',
        Action: 'kms:Decrypt',
        Resource: '*',
        Condition: {
          StringEquals: { 'kms:EncryptionContext:App': 'secret' },
          IpAddress: { 'aws:SourceIp': '192.0.2.0/24' },
        },
      },
    )
    await gateway.client().send(new PutKeyPolicyCommand({ KeyId: keyId, Policy }))
    expect(await ask('bob')).toMatchObject({
      decision: 'allowed',
      principal: userArn('bob'),
      resource: expect.stringMatching(new RegExp(`:key/${keyId}$`)),
      decidedBy: 'identity policy test statement 1',
      statements: [
        { source: 'identity-policy', effect: 'Allow', reach: expect.any(String) },
        { source: 'key-policy', statement: 'key policy "account"', effect: 'Allow', reach: 'account' },
      ],
    })
    expect(await ask('alice')).toMatchObject({ decision: 'implicitDeny' })
    const context = ['--context', 'kms:EncryptionContext:app=secret', '--context', 'aws:SourceIp=192.0.2.7']
    expect(await ask(userArn('bob'), ...context)).toMatchObject({
      decision: 'explicitDeny',
      decidedBy: 'key policy "not from outside"',
    })
    // without an address the condition on it does not hold
    expect(await ask('bob', ...context.slice(0, 2))).toMatchObject({ decision: 'allowed' })
    const text = await hsmgate(['policy', 'simulate', '--principal', 'bob', '--action', 'kms:Decrypt', '--key', keyId])
    expect(text.out).toMatch(/^decision +allowed\n/)
    const unknown = await hsmgate(['policy', 'simulate', '--principal', 'x', '--action', 'kms:Decrypt', '--key', keyId])
    expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('There is no principal x.') })
    const pairless = await hsmgate(['policy', 'simulate', '--principal', 'bob', '--action', 'kms:X', '--context', 'a'])
    expect(pairless.code).not.toBe(0)
    expect(await json(['policy', 'simulate', '--principal', 'bob', '--action', 'kms:CreateKey'])).toMatchObject({
      decision: 'implicitDeny',
      resource: '*',
    })
  })

  it('lists who can, grants and roles included, and leaves no trace in the journal but the question', async () => {
    const trust = document({ Effect: 'Allow', Principal: { AWS: userArn('alice') }, Action: 'sts:AssumeRole' })
    const policy = document({ Effect: 'Allow', Action: 'kms:*', Resource: '*' })
    const { administration } = gateway.gateway
    await administration.createRole(testAccount, 'keeper', trust, { name: 'kms', document: policy })
    const request = { KeyId: keyId, GranteePrincipal: userArn('alice'), Operations: ['Decrypt' as const] }
    const { GrantId } = await gateway.client().send(new CreateGrantCommand(request))
    const { principals } = await json(['policy', 'who-can', 'kms:Decrypt', '--key', keyId])
    expect(principals).toEqual([
      { principal: roleArn('keeper'), kind: 'role', by: 'identity-policy', decidedBy: expect.any(String) },
      { principal: userArn('administrator'), kind: 'user', by: 'identity-policy', decidedBy: expect.any(String) },
      { principal: userArn('alice'), kind: 'user', by: 'grant', decidedBy: `grant ${GrantId}` },
      { principal: userArn('bob'), kind: 'user', by: 'identity-policy', decidedBy: expect.any(String) },
    ])
    const text = await hsmgate(['policy', 'who-can', 'kms:PutKeyPolicy', '--key', keyId])
    expect(text.out).not.toContain('alice')
    expect(text.out).toContain('administrator')
    await administration.setRoleEnabled(testAccount, 'keeper', false)
    expect((await hsmgate(['policy', 'who-can', 'kms:PutKeyPolicy', '--key', keyId])).out).not.toContain('keeper')
    const journal = await readFile(path.join(gateway.directory, 'audit', '00000001.jsonl'), 'utf8')
    expect(journal).toContain('"eventName":"PolicyWhoCan"')
    expect(journal).not.toContain('"eventName":"Decrypt"')
  })
})
