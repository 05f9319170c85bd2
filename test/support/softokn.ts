/**
 * Tokens of NSS softokn for tests: a PKCS#11 module that has nothing in common with SoftHSM, from Debian's libnss3, and needs no server and no
 * rights. certutil makes its database; the PIN goes by file. Each in a temporary folder of its own.
 *
 *   await using token = await createSoftoknToken()
 */
import { globSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { runOk } from './command.ts'

export interface SoftoknToken extends AsyncDisposable {
  readonly module: string
  /** Library parameters for C_Initialize. */
  readonly initArgs: string
  readonly label: string
  readonly pinFile: string
  readonly directory: string
}

export async function createSoftoknToken(): Promise<SoftoknToken> {
  const [module] = globSync('/usr/lib/*/{nss/,}libsoftokn3.so')
  if (module === undefined) throw new Error('NSS softokn is not installed; remedy: apt-get install libnss3-tools')
  const directory = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-softokn-'))
  try {
    const database = path.join(directory, 'db')
    const pinFile = path.join(directory, 'pin')
    await mkdir(database)
    await writeFile(pinFile, 'softokn-test-pin', { mode: 0o600 })
    await runOk('/usr/bin/certutil', ['-N', '-d', `sql:${database}`, '-f', pinFile])
    return {
      module,
      initArgs: `configdir='sql:${database}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=`,
      label: 'NSS Certificate DB',
      pinFile,
      directory,
      [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
    }
  } catch (cause) {
    await rm(directory, { recursive: true, force: true })
    throw cause
  }
}
