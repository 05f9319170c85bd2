/** Users and groups of this machine, through id(1) and getent(1), which ask whatever they come from. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { ProblemsError } from '../problem.ts'

export interface MachineUser {
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
}

/** @throws ProblemsError */
export async function findUser(name: string): Promise<MachineUser> {
  const remedy = 'name a user of this machine'
  if (!/^[a-z_][a-z0-9_.-]{0,63}\$?$/i.test(name)) {
    throw new ProblemsError([{ at: '--user', cause: `${name} is no name of a user`, remedy }])
  }
  const run = async (option: string) => {
    const { stdout } = await promisify(execFile)('id', [option, '--', name])
    return stdout.trim().split(' ').map(Number)
  }
  try {
    const [[uid = -1], [gid = -1], groups] = await Promise.all([run('-u'), run('-g'), run('-G')])
    return { uid, gid, groups }
  } catch (cause) {
    throw new ProblemsError([{ at: '--user', cause: `there is no user ${name} on this machine`, remedy }], { cause })
  }
}

/** Its number where it has no name. */
export async function nameOfGroup(gid: number): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)('getent', ['group', '--', String(gid)])
    return /^[^:]+/.exec(stdout)?.[0] ?? String(gid)
  } catch {
    return String(gid)
  }
}
