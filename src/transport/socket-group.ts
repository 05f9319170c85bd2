/** The group of a Unix socket, as a configuration names it. */
import { readFileSync } from 'node:fs'
import { ProblemsError } from '../problem.ts'

/** By number, or by name in /etc/group (Node asks no name service). @throws ProblemsError */
export function findGroupId(group: string, option: string): number {
  if (/^\d{1,10}$/.test(group)) return Number(group)
  for (const line of readFileSync('/etc/group', 'utf8').split('\n')) {
    const [name, , gid] = line.split(':')
    if (name === group && gid !== undefined) return Number(gid)
  }
  const remedy = 'create it, or give its number'
  throw new ProblemsError([{ at: option, cause: `there is no group '${group}'`, remedy }])
}
