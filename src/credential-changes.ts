/**
 * Access keys follow what other gateways on the same catalog do to users. From the moment that a change is known until the user has been read again, his
 * credentials are in doubt: whoever presents one waits. What can't be read stays in doubt, and is tried again.
 */
import type { Administration } from './administration.ts'
import type { Credential, CredentialStore } from './authenticate/authenticate.ts'
import type { Catalog } from './catalog/catalog.ts'

export interface CredentialFollower extends Disposable {
  /** As {@link CredentialStore.find}, or a promise while there is a doubt. */
  find(accessKeyId: string): Credential | undefined | Promise<Credential | undefined>
}

export interface CredentialFollowerParts {
  readonly catalog: Pick<Catalog, 'onChange'>
  readonly credentials: Pick<CredentialStore, 'find'>
  readonly administration: Pick<Administration, 'reloadUser' | 'reloadUsers' | 'userOf'>
  readonly failed: (cause: unknown) => void
}

const retryMs = 1_000
const everybody = '*'

export function followCredentials(parts: CredentialFollowerParts): CredentialFollower {
  const { catalog, credentials, administration, failed } = parts
  /** By user, as the change table names him. */
  const doubts = new Map<string, Promise<unknown>>()
  const retries = new Set<NodeJS.Timeout>()
  let isClosed = false

  function retry(user: string): void {
    if (isClosed) return
    const timer = setTimeout(() => {
      retries.delete(timer)
      look(user)
    }, retryMs).unref()
    retries.add(timer)
  }

  function look(user: string): void {
    const read = async () => {
      const [account = '', , name = ''] = user.split('/')
      const unread = await (user === everybody
        ? administration.reloadUsers()
        : administration.reloadUser(account, name))
      // what could not be unsealed now is unknown until it can
      if (unread.length > 0) retry(user)
    }
    const turn = (doubts.get(user) ?? Promise.resolve()).catch(() => {}).then(read)
    doubts.set(user, turn)
    turn.then(
      () => {
        if (doubts.get(user) === turn) doubts.delete(user)
      },
      (cause) => {
        failed(cause)
        retry(user)
      },
    )
  }

  catalog.onChange(({ table, name, own }) => {
    if (own) return
    if (table === '*') look(everybody)
    // policies and access keys change the row of their user too
    else if (table === 'principal' && name.split('/')[1] === 'user') look(name)
  })

  return {
    find(accessKeyId) {
      const known = credentials.find(accessKeyId)
      if (doubts.size === 0) return known
      // a new access key may be of anybody
      if (known === undefined) return Promise.all(doubts.values()).then(() => credentials.find(accessKeyId))
      const doubt = doubts.get(administration.userOf(known.principal)) ?? doubts.get(everybody)
      return doubt === undefined ? known : doubt.then(() => credentials.find(accessKeyId))
    },
    [Symbol.dispose]() {
      isClosed = true
      for (const timer of retries) clearTimeout(timer)
    },
  }
}
