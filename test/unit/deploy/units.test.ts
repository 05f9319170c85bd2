/** The units and drop-ins of deploy/, read by systemd itself; where systemd-analyze is absent there is nobody to ask. */
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../../support/command.ts'

const checkout = path.resolve(import.meta.dirname, '../../..')
const analyze = '/usr/bin/systemd-analyze'
const read = (file: string) => readFile(path.join(checkout, 'deploy', file), 'utf8')
let folder: string

/** Where an administrator puts them, the program being this checkout's. */
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'hsmgate-units-'))
  const place = async (file: string, name: string) => {
    await mkdir(path.dirname(path.join(folder, name)), { recursive: true })
    const text = await read(file)
    await writeFile(path.join(folder, name), text.replaceAll('/opt/hsmgate/', `${checkout}/`))
  }
  const units = (await readdir(path.join(checkout, 'deploy'))).filter((file) => /\.(service|socket)$/.test(file))
  for (const unit of units) await place(unit, unit)
  await place('haproxy/hsmgate-sign-haproxy.socket', 'hsmgate-sign-haproxy.socket')
  await place('haproxy/hsmgate.service.d.conf', 'hsmgate.service.d/haproxy.conf')
  for (const [server, name] of [
    ['nginx', 'nginx'],
    ['haproxy', 'haproxy'],
    ['apache', 'apache2'],
  ]) {
    await writeFile(path.join(folder, `${name}.service`), '[Service]\nExecStart=/bin/true\n')
    await place(`${server}/${name}.service.d.conf`, `${name}.service.d/hsmgate.conf`)
  }
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('the units', () => {
  it
    .skipIf(!existsSync(analyze))
    .each([
      'hsmgate.service',
      'hsmgate-sign.socket',
      'hsmgate-sign-haproxy.socket',
      'hsmgate-relay.service',
      'hsmgate-relay.socket',
      'nginx.service',
      'haproxy.service',
      'apache2.service',
    ])('have nothing that systemd does not know: %s', { timeout: 60_000 }, async (unit) => {
    const env = { PATH: '/usr/bin:/bin', SYSTEMD_UNIT_PATH: `${folder}:/lib/systemd/system` }
    const words = ['verify', '--man=no', '--generators=no', path.join(folder, unit)]
    const { status, stdout, stderr } = await run(analyze, words, { env })
    const said = `${stdout}${stderr}`.split('\n').filter((line) => line.includes(folder) || line.includes('hsmgate'))
    expect([status, said]).toEqual([0, []])
  })

  it('are never given up by systemd, and come with the sockets that they serve', async () => {
    for (const [service, socket] of [
      ['hsmgate.service', 'hsmgate-sign.socket'],
      ['hsmgate-relay.service', 'hsmgate-relay.socket'],
    ] as const) {
      const text = await read(service)
      expect(text).toMatch(/^StartLimitIntervalSec=0$/m)
      expect(text).toMatch(new RegExp(`^Sockets=${socket}$`, 'm'))
      expect(await read(socket)).toMatch(new RegExp(`^Service=${service}$`, 'm'))
    }
  })

  it('are enabled before a restart in every text: systemd starts no socket beside a service that runs', async () => {
    const texts = [
      'deploy/hsmgate-sign.socket',
      'deploy/haproxy/hsmgate-sign-haproxy.socket',
      'docs/tls-servers.md',
      'docs/tls-offload.md',
    ]
    for (const file of texts) {
      expect([file, await readFile(path.join(checkout, file), 'utf8')]).toEqual([
        file,
        expect.not.stringMatching(/enable --now hsmgate-sign/),
      ])
    }
  })
})
