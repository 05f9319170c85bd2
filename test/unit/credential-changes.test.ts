import { describe, expect, it } from 'vitest'
import type { Credential } from '../../src/authenticate/authenticate.ts'
import { createCredentialStore } from '../../src/authenticate/credentials.ts'
import type { Catalog } from '../../src/catalog/catalog.ts'
import { followCredentials } from '../../src/credential-changes.ts'

type Listener = Parameters<Catalog['onChange']>[0]

function openBench() {
  const listeners: Listener[] = []
  const credentials = createCredentialStore()
  const reads: { readonly user: string; readonly end: (unread?: readonly string[] | Error) => void }[] = []
  const read = (user: string) => {
    const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>()
    reads.push({ user, end: (unread = []) => (unread instanceof Error ? reject(unread) : resolve(unread)) })
    return promise
  }
  const failures: unknown[] = []
  const follower = followCredentials({
    catalog: { onChange: (listener) => void listeners.push(listener) },
    credentials,
    administration: {
      reloadUser: (account, name) => read(`${account}/user/${name}`),
      reloadUsers: () => read('*'),
      userOf: ({ account, userName }) => `${account}/user/${userName}`,
    },
    failed: (cause) => failures.push(cause),
  })
  const put = (accessKeyId: string, userName: string) =>
    credentials.put({
      accessKeyId,
      secret: Buffer.from('secret'),
      principal: { type: 'user', account: '1', arn: `arn:${userName}`, userName } as Credential['principal'],
    })
  const tell = (table: string, name: string, own = false) => {
    for (const listener of listeners) listener({ table, name, revision: 1, own })
  }
  return { credentials, follower, put, tell, reads, failures }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

describe('a credential', () => {
  it('is found at once while nobody else changes anything', () => {
    const { follower, put, tell, reads } = openBench()
    using _ = follower
    put('AKIA1', 'anna')
    tell('principal', '1/user/anna', true)
    tell('key', '1/us-east-1/k')
    tell('principal', '1/role/anna')
    expect(follower.find('AKIA1')).toMatchObject({ accessKeyId: 'AKIA1' })
    expect(follower.find('AKIA2')).toBeUndefined()
    expect(reads).toEqual([])
  })

  it('is in doubt from the change of its user on, and gone when the user was disabled', async () => {
    const { credentials, follower, put, tell, reads } = openBench()
    using _ = follower
    put('AKIA1', 'anna')
    put('AKIA2', 'bert')
    tell('principal', '1/user/anna')
    const asked = follower.find('AKIA1')
    expect(asked).toBeInstanceOf(Promise)
    expect(follower.find('AKIA2')).toMatchObject({ accessKeyId: 'AKIA2' })
    await turn()
    credentials.drop('AKIA1')
    reads[0]?.end()
    expect(await asked).toBeUndefined()
    expect(follower.find('AKIA1')).toBeUndefined()
  })

  it('that is unknown may be a new one: whoever presents it waits for what is being read', async () => {
    const { follower, put, tell, reads } = openBench()
    using _ = follower
    tell('principal', '1/user/anna')
    const asked = follower.find('AKIA1')
    await turn()
    put('AKIA1', 'anna')
    reads[0]?.end()
    expect(await asked).toMatchObject({ accessKeyId: 'AKIA1' })
  })

  it('lets nobody in while its user cannot be read', async () => {
    const { follower, put, tell, reads, failures } = openBench()
    using _ = follower
    put('AKIA1', 'anna')
    tell('principal', '1/user/anna')
    await turn()
    reads[0]?.end(new Error('away'))
    await expect(follower.find('AKIA1')).rejects.toThrow('away')
    await turn()
    expect(failures).toHaveLength(1)
    // the next change, or the next attempt, reads again
    tell('principal', '1/user/anna')
    await turn()
    const asked = follower.find('AKIA1')
    reads[1]?.end()
    expect(await asked).toMatchObject({ accessKeyId: 'AKIA1' })
    await turn()
    expect(follower.find('AKIA1')).toMatchObject({ accessKeyId: 'AKIA1' })
  })

  it('is in doubt with all others when anything may have changed', async () => {
    const { follower, put, tell, reads } = openBench()
    using _ = follower
    put('AKIA1', 'anna')
    tell('*', '*')
    await turn()
    expect(reads.map(({ user }) => user)).toEqual(['*'])
    const asked = follower.find('AKIA1')
    expect(asked).toBeInstanceOf(Promise)
    reads[0]?.end()
    expect(await asked).toMatchObject({ accessKeyId: 'AKIA1' })
  })
})
