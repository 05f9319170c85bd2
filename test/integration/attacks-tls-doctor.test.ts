/** Root examines the server of another user: what that server's process says of itself is not run as root. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import { runHsmgateProcess } from '../support/hsmgate-process.ts'

const nobody = 65_534
/** A provider that notes who loaded it. */
const source = (file: string) => `
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void)
{
    FILE *file = fopen("${file}", "a");
    if (file != NULL) {
        fprintf(file, "%u\\n", geteuid());
        fclose(file);
    }
}
int OSSL_provider_init(void) { return 0; }
`

it.runIf(process.getuid?.() === 0)('loads the provider of a user as that user', { timeout: 60_000 }, async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'hsmgate-doctor-'))
  const file = (name: string) => path.join(folder, name)
  await chmod(folder, 0o755)
  await mkdir(file('notes'))
  await chmod(file('notes'), 0o777)
  await writeFile(file('evil.c'), source(file('notes/loaded')))
  await runOk('cc', ['-shared', '-fPIC', '-o', file('hsmgate.so'), file('evil.c')])
  const lines = [
    'openssl_conf = init',
    '[init]',
    'providers = list',
    '[list]',
    'hsmgate = evil',
    'default = base',
    '[evil]',
    `module = ${file('hsmgate.so')}`,
    'activate = 1',
    '[base]',
    'activate = 1',
  ]
  await writeFile(file('evil.cnf'), lines.join('\n'))
  const server = spawn('sleep', ['60'], {
    uid: nobody,
    gid: nobody,
    env: { PATH: '/usr/bin:/bin', OPENSSL_CONF: file('evil.cnf') },
  })
  try {
    await once(server, 'spawn')
    await runHsmgateProcess(['tls', 'doctor', '--pid', String(server.pid)])
    const loadedBy = (await readFile(file('notes/loaded'), 'utf8')).trim().split('\n')
    expect(new Set(loadedBy)).toEqual(new Set([String(nobody)]))
  } finally {
    const ended = once(server, 'exit')
    server.kill('SIGKILL')
    await ended
    await rm(folder, { recursive: true, force: true })
  }
})
