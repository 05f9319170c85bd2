/** `hsmgate <words>` in the test's own process, against a gateway of the test. */
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { TestGateway } from './gateway.ts'
import { runHsmgate } from './terminal.ts'

export interface GatewayCli {
  /** A configuration that names the gateway. */
  readonly configFile: string
  run(...words: string[]): ReturnType<typeof runHsmgate>
  /** The JSON that a command answers. @throws when it fails. */
  json<T = Record<string, unknown>>(...words: string[]): Promise<T>
}

export async function createGatewayCli(gateway: Pick<TestGateway, 'directory' | 'token'>): Promise<GatewayCli> {
  const configFile = path.join(gateway.directory, 'config.json')
  const { module, label, pinFile } = gateway.token
  await writeFile(configFile, JSON.stringify({ development: true, tokens: { softhsm: { module, label, pinFile } } }))
  const run = (...words: string[]) => runHsmgate(['--config', configFile, ...words])
  return {
    configFile,
    run,
    async json<T>(...words: string[]) {
      const { code, out, err } = await run('--json', ...words)
      if (code !== 0) throw new Error(err)
      return JSON.parse(out) as T
    },
  }
}
