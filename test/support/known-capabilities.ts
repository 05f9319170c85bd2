/**
 * What the capability probe proved about SoftHSM2 holds for every token of it: the first gateway of a run finds out, the others start with
 * that, as gateways do at every start but their first. Most of a first start is the generation of RSA keys for that probe. An entry that does
 * not fit is none to a gateway, which then probes; tests that start processes or open the HSM layer themselves always probe.
 * Test files share a folder, written by renaming; where there is none, as outside of vitest, nothing is shared.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { findSoftHsmModule } from '../../softhsm/token.ts'
import type { TestToken } from './softhsm.ts'

const folderVariable = 'HSMGATE_TEST_CAPABILITIES'
/** As the HSM layer names it in its state folder. */
const fileName = 'capabilities.json'
/** Stands for the serial, the one thing in which tokens differ. */
const anySerial = '<serial>'

/** For vitest: before and after all test files. */
export default function makeFolder(): () => void {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-capabilities-'))
  process.env[folderVariable] = folder
  return () => rmSync(folder, { recursive: true, force: true })
}

/** Starts what uses a plain SoftHSM2 token under the name `name` and its state in `stateDirectory`. */
export async function startKnowing<T>(
  name: string,
  token: TestToken,
  stateDirectory: string,
  start: () => Promise<T>,
): Promise<T> {
  const { [folderVariable]: folder } = process.env
  if (folder === undefined || token.module !== findSoftHsmModule()) return start()
  const shared = path.join(folder, fileName)
  const own = path.join(stateDirectory, fileName)
  if (existsSync(own)) return start()
  if (existsSync(shared)) {
    const entry = (await readFile(shared, 'utf8')).replaceAll(anySerial, token.serial)
    await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
    await writeFile(own, `{${JSON.stringify(name)}:${entry}}`, { mode: 0o600 })
    return start()
  }
  const started = await start()
  const { [name]: entry } = JSON.parse(await readFile(own, 'utf8'))
  const draft = path.join(folder, `${process.pid}.new`)
  await writeFile(draft, JSON.stringify(entry).replaceAll(token.serial, anySerial))
  await rename(draft, shared)
  return started
}
