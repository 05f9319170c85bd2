/**
 * Listening sockets that whoever started this process made for it: systemd's socket activation (sd_listen_fds(3)), or a shell that does the
 * same by hand. They exist before the gateway and outlive it, so a restart refuses nobody: who connects meanwhile waits in the kernel.
 *
 * A socket belongs to the door that its name says (`FileDescriptorName=` of the socket unit). Taken once: the environment forgets them, so that
 * no child believes they are its own; Node has set close-on-exec on every descriptor that it found at its start.
 */
import { ProblemsError } from '../problem.ts'

/** Descriptors by the name of their listener; further sockets of one door are `offload-2`, `offload-3`, ... */
export type InheritedListeners = ReadonlyMap<string, number>

/** Names of listeners that can be inherited, and whether there may be several. */
const listenerNames: ReadonlyMap<string, { readonly isSingle: boolean }> = new Map([
  ['kms', { isSingle: true }],
  ['xks', { isSingle: true }],
  ['relay', { isSingle: true }],
  ['operator', { isSingle: true }],
  ['operator-http', { isSingle: true }],
  ['offload', { isSingle: false }],
])

/** SD_LISTEN_FDS_START */
const firstDescriptor = 3
const maxDescriptors = 64

/**
 * A single socket without a name is the signing socket's.
 * @throws ProblemsError when the environment makes no sense or names a door that there isn't.
 */
export function takeInheritedListeners(env: NodeJS.ProcessEnv = process.env, pid = process.pid): InheritedListeners {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env
  if (LISTEN_PID !== String(pid) || LISTEN_FDS === undefined) return new Map()
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID']) delete env[name]

  const count = Number(LISTEN_FDS)
  if (!Number.isInteger(count) || count < 0 || count > maxDescriptors) {
    throw problem('LISTEN_FDS', `is ${LISTEN_FDS}`, `pass at most ${maxDescriptors} sockets`)
  }
  const isUnnamed = LISTEN_FDNAMES === undefined || LISTEN_FDNAMES === 'unknown'
  const names = isUnnamed ? (count === 1 ? ['offload'] : []) : LISTEN_FDNAMES.split(':')
  if (names.length !== count) {
    throw problem('LISTEN_FDNAMES', `does not name ${count} sockets`, 'set FileDescriptorName= in each socket unit')
  }
  const listeners = new Map<string, number>()
  for (const [index, name] of names.entries()) listeners.set(freeName(name, listeners), firstDescriptor + index)
  return listeners
}

function freeName(name: string, taken: InheritedListeners): string {
  const listener = listenerNames.get(name)
  if (listener === undefined) {
    const known = [...listenerNames.keys()].join(', ')
    throw problem('LISTEN_FDNAMES', `'${name.slice(0, 64)}' is no listener of hsmgate`, `name it one of ${known}`)
  }
  if (!taken.has(name)) return name
  if (listener.isSingle) throw problem('LISTEN_FDNAMES', `names ${name} twice`, 'pass one socket for it')
  let number = 2
  while (taken.has(`${name}-${number}`)) number++
  return `${name}-${number}`
}

function problem(at: string, cause: string, remedy: string): ProblemsError {
  return new ProblemsError([{ at, cause, remedy }])
}
