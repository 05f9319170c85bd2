/**
 * What the capability probe proved about SoftHSM2 holds for every token of it: the first gateway of a run finds out, the others start with
 * that, as gateways do at every start but their first. Most of a first start is the generation of RSA keys for that probe. An entry that does
 * not fit is none to a gateway, which then probes; `hsmgate dev`, `hsmgate doctor` and tests of the HSM layer always probe.
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

/** Before the first start of what uses a plain SoftHSM2 token under that name; nothing for other modules. */
export async function lendCapabilities(name: string, token: TestToken, stateDirectory: string): Promise<void> {
  const shared = findShared(token)
  const own = path.join(stateDirectory, fileName)
  if (shared === undefined || existsSync(own) || !existsSync(shared)) return
  const entry = (await readFile(shared, 'utf8')).replaceAll(anySerial, token.serial)
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
  await writeFile(own, `{${JSON.stringify(name)}:${entry}}`, { mode: 0o600 })
}

/** Starts with what is known, and makes it known when nothing is. */
export async function startKnowing<T>(
  name: string,
  token: TestToken,
  stateDirectory: string,
  start: () => Promise<T>,
): Promise<T> {
  await lendCapabilities(name, token, stateDirectory)
  const started = await start()
  const shared = findShared(token)
  if (shared === undefined || existsSync(shared)) return started
  const { [name]: entry } = JSON.parse(await readFile(path.join(stateDirectory, fileName), 'utf8'))
  const draft = `${shared}.${process.pid}`
  await writeFile(draft, JSON.stringify(entry).replaceAll(token.serial, anySerial))
  await rename(draft, shared)
  return started
}

function findShared(token: TestToken): string | undefined {
  const { [folderVariable]: folder } = process.env
  return folder === undefined || token.module !== findSoftHsmModule() ? undefined : path.join(folder, fileName)
}
