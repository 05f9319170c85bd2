/** From nothing to a working gateway and back, as a developer does it: the real command, SoftHSM2, Debian's AWS CLI. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type HsmgateProcess, runHsmgateProcess, startHsmgate } from '../support/hsmgate-process.ts'
import { findFreePort } from '../support/nginx.ts'

const patience = 180_000
let home: string
let directory: string

beforeEach(async () => {
  home = await realpath(await mkdtemp(path.join(os.tmpdir(), 'hsmgate-dev-')))
  directory = path.join(home, '.hsmgate')
})

afterEach(async () => {
  await rm(home, { recursive: true, force: true })
})

const inDirectory = (name: string) => path.join(directory, name)
const freePorts = ['--kms-port', '0', '--operator-port', '0']
const dev = (...words: string[]) => startHsmgate(['dev', '--directory', directory, ...freePorts, ...words])
const hsmgate = (...words: string[]) => runHsmgateProcess([...words, '--config', inDirectory('config.json')])
const json = async (...words: string[]) => JSON.parse((await hsmgate(...words, '--json')).out)

async function stop(running: HsmgateProcess) {
  running.kill('SIGINT')
  return running.ended
}

/** Runs a line in a shell that knows nothing but where programs are. */
async function paste(line: string): Promise<string> {
  const env = { PATH: '/usr/bin:/bin', HOME: home, AWS_EC2_METADATA_DISABLED: 'true', AWS_PAGER: '' }
  const { stdout } = await promisify(execFile)('/bin/sh', ['-c', line], { env, encoding: 'utf8' })
  return stdout
}

async function awsLine(running: HsmgateProcess): Promise<string> {
  const [, line] = await running.output(/^ {2}(AWS_SHARED_CREDENTIALS_FILE=.*)$/m)
  await running.output(/Ctrl-C stops it/)
  return line!
}

async function keyIds(): Promise<readonly string[]> {
  const { keys } = await json('key', 'list')
  return keys.map(({ keyId }: { keyId: string }) => keyId)
}

describe('hsmgate dev', () => {
  it('makes all that it needs, proves itself, prints an AWS command that works, and finds the key again after a restart', {
    timeout: patience,
  }, async () => {
    let made: { KeyMetadata: { KeyId: string; Arn: string; Description: string } }
    {
      await using first = dev()
      await first.output(/^self-test: create symmetric key, encrypt, decrypt, create signing key, sign, verify: ok/m)
      made = JSON.parse(await paste(await awsLine(first)))
      expect(made.KeyMetadata).toMatchObject({ Description: 'my first key', KeyState: 'Enabled' })
      const { code, err } = await stop(first)
      expect({ code, err }).toEqual({ code: 0, err: 'SIGINT: finishing what is under way, then ending\n' })
    }
    for (const name of ['credentials', 'gateway.log', 'self-test.json', 'config.json', 'catalog.sqlite']) {
      expect([name, (await stat(inDirectory(name))).mode & 0o777]).toEqual([name, 0o600])
    }
    const before = await readFile(inDirectory('credentials'), 'utf8')
    {
      await using second = dev()
      await second.output(/^self-test: encrypt, decrypt, sign, verify: ok/m)
      const line = await awsLine(second)
      const describeKey = line.replace(/ kms create-key .*$/, ` kms describe-key --key-id ${made.KeyMetadata.KeyId}`)
      expect(JSON.parse(await paste(describeKey))).toEqual(made)
      expect(await keyIds()).toHaveLength(3)
      expect((await stop(second)).code).toBe(0)
    }
    expect(await readFile(inDirectory('credentials'), 'utf8')).toBe(before)
    expect(await hsmgate('key', 'list')).toMatchObject({ code: 3 })
  })

  it('names its signing socket and prints a command that shows a TLS server with a key in the module', {
    timeout: patience,
  }, async () => {
    await using running = dev()
    const [, socket] = await running.output(/^ {2}signing +(\S+)$/m)
    expect((await stat(socket!)).isSocket()).toBe(true)
    const [, line] = await running.output(/^ {2}(HSMGATE_CONFIG=.*try-tls\.sh)$/m)
    // a group of its own, to be interrupted as a terminal does it
    const env = { PATH: '/usr/bin:/bin', HOME: home }
    const shown = spawn('/bin/bash', ['-c', `${line} ${await findFreePort()}`], { env, cwd: home, detached: true })
    let said = ''
    for (const stream of [shown.stdout, shown.stderr]) stream.on('data', (text) => (said += text))
    const ended = once(shown, 'close')
    await Promise.race([expect.poll(() => said, { timeout: 60_000 }).toContain('stays until Ctrl-C'), ended])
    expect(said).toMatch(/^Peer signature type: ECDSA\nVerification: OK$/m)
    expect((await json('tls', 'list')).bindings).toHaveLength(1)
    process.kill(-shown.pid!, 'SIGINT')
    await ended
    expect((await json('tls', 'list')).bindings).toEqual([])
  })

  it('takes an interrupt that arrives twice, from the terminal and from npm, for one', {
    timeout: patience,
  }, async () => {
    await using running = dev()
    await running.output(/Ctrl-C stops it/)
    running.kill('SIGINT')
    running.kill('SIGINT')
    expect((await running.ended).code).toBe(0)
  })

  it('gives the administrator a new access key when the catalog is new, and keeps the old file', {
    timeout: patience,
  }, async () => {
    {
      await using first = dev()
      await first.output(/Ctrl-C stops it/)
      await stop(first)
    }
    const old = await readFile(inDirectory('credentials'), 'utf8')
    for (const name of await readdir(directory)) {
      if (name.startsWith('catalog.sqlite')) await rm(inDirectory(name))
    }
    await using second = dev()
    const [, accessKeyId] = await second.output(/the gateway no longer knows access key (AKIA\w+) /)
    const [, aside] = await second.output(/the old file is kept as (\S+);/)
    expect(old).toContain(accessKeyId)
    expect(await readFile(aside!, 'utf8')).toBe(old)
    // The keys of the first proof are unknown to the new catalog: the proof makes others.
    await second.output(/^self-test: create symmetric key/m)
    expect(JSON.parse(await paste(await awsLine(second))).KeyMetadata.KeyState).toBe('Enabled')
  })

  it('answers with status 1, cause and remedy to a taken port, a second gateway on its state and a wrong PIN', {
    timeout: patience,
  }, async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await using taken = dev('--kms-port', String(port))
    expect(await taken.ended).toMatchObject({
      code: 1,
      err: `listen.kms: 127.0.0.1:${port} is taken by another process\n  remedy: stop that process, or set listen.kms.port\n`,
    })
    server.close()
    {
      await using first = dev()
      await first.output(/Ctrl-C stops it/)
      await using second = dev()
      expect(await second.ended).toMatchObject({
        code: 1,
        err: `${directory}: another gateway runs on this state\n  remedy: stop it first, or give this one a state folder of its own\n`,
      })
      await stop(first)
    }
    await writeFile(inDirectory('softhsm/pin'), '00000000')
    await using refused = dev()
    const { code, err } = await refused.ended
    expect(code).toBe(1)
    expect(err).toMatch(/^tokens\.softhsm: the token refused the PIN .+\n {2}remedy: .+\n$/)
    expect(err).not.toContain('00000000')
  })

  it('ends with status 1 when it cannot prove itself, and says what failed', { timeout: patience }, async () => {
    {
      await using first = dev()
      await first.output(/Ctrl-C stops it/)
      const deny = { Version: '2012-10-17', Statement: [{ Effect: 'Deny', Action: 'kms:Decrypt', Resource: '*' }] }
      await writeFile(path.join(home, 'deny.json'), JSON.stringify(deny))
      const words = ['administrator', '--policy-name', 'no-decrypt', '--document', path.join(home, 'deny.json')]
      expect(await hsmgate('principal', 'policy', 'put', ...words)).toMatchObject({ code: 0, err: '' })
      await stop(first)
    }
    await using second = dev()
    const { code, out, err } = await second.ended
    expect(code).toBe(1)
    expect(out).toBe('')
    expect(err).toMatch(
      /^self-test, encrypt and decrypt: AccessDeniedException: Decrypt was refused: .+\n {2}remedy: .+\n$/,
    )
  })

  it('respects that an operator disabled the administrator: it serves, says so and proves nothing', {
    timeout: patience,
  }, async () => {
    {
      await using first = dev()
      await first.output(/Ctrl-C stops it/)
      expect(await hsmgate('principal', 'disable', 'administrator')).toMatchObject({ code: 0 })
      await stop(first)
    }
    const before = await readFile(inDirectory('credentials'), 'utf8')
    await using second = dev()
    await second.output(/user administrator is disabled; hsmgate principal enable administrator/)
    await second.output(/self-test skipped/)
    await second.output(/Ctrl-C stops it/)
    expect((await json('principal', 'list')).Users).toMatchObject([{ UserName: 'administrator', Enabled: false }])
    expect(await readFile(inDirectory('credentials'), 'utf8')).toBe(before)
  })

  it('lets operators manage users by command while it runs', { timeout: patience }, async () => {
    await using running = dev()
    const line = await awsLine(running)

    expect(await hsmgate('principal', 'create', 'bob')).toEqual({
      code: 0,
      out: 'arn:aws:iam::000000000000:user/bob\n',
      err: '',
    })
    expect(await hsmgate('principal', 'create', 'bob')).toMatchObject({ code: 1, out: '' })
    const { AccessKey } = await json('principal', 'key', 'create', 'bob')
    expect(AccessKey).toEqual({
      UserName: 'bob',
      AccessKeyId: expect.stringMatching(/^AKIA[A-Z2-7]{16}$/),
      Status: 'Active',
      SecretAccessKey: expect.stringMatching(/^[\w+/]{40}$/),
      CreateDate: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    })

    // The snippet is a credentials file of its own.
    const snippet = await hsmgate('principal', 'key', 'create', 'bob')
    await writeFile(path.join(home, 'bob'), snippet.out, { mode: 0o600 })
    const asBob = (operation: string) =>
      paste(
        line.replace(/=\S+ aws /, `=${path.join(home, 'bob')} aws --profile bob `).replace(/create-key .*$/, operation),
      )
    await expect(asBob('list-keys')).rejects.toThrow(/AccessDeniedException/)
    const allow = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'kms:ListKeys', Resource: '*' }] }
    await writeFile(path.join(home, 'allow.json'), JSON.stringify(allow))
    const put = ['bob', '--policy-name', 'list', '--document', path.join(home, 'allow.json')]
    expect((await hsmgate('principal', 'policy', 'put', ...put)).code).toBe(0)
    expect(JSON.parse(await asBob('list-keys')).Keys).toHaveLength(2)
    const read = await hsmgate('principal', 'policy', 'get', 'bob', '--policy-name', 'list')
    expect(JSON.parse(read.out)).toEqual(allow)

    const [, accessKeyId] = /aws_access_key_id = (\w+)/.exec(snippet.out)!
    expect((await hsmgate('principal', 'key', 'disable', accessKeyId!)).code).toBe(0)
    await expect(asBob('list-keys')).rejects.toThrow(/UnrecognizedClientException/)
    const { AccessKeyMetadata } = await json('principal', 'key', 'list', 'bob')
    expect(AccessKeyMetadata.map(({ Status }: { Status: string }) => Status).sort()).toEqual(['Active', 'Inactive'])
    expect((await hsmgate('principal', 'delete', 'bob')).code).toBe(0)
    expect((await json('principal', 'list')).Users).toMatchObject([{ UserName: 'administrator', Enabled: true }])

    const [keyId] = await keyIds()
    expect((await hsmgate('key', 'show', keyId!)).out).toContain(`arn:aws:kms:us-east-1:000000000000:key/${keyId}\n`)
    expect((await hsmgate('key', 'show', 'alias/none')).code).toBe(1)
    expect((await hsmgate('token', 'list')).out).toMatch(/^default +softhsm +hsmgate +\w+ +ready +3\/3$/m)
    expect((await hsmgate('audit', 'verify')).out).toMatch(/^journal +whole$/m)
    // No secret came to rest anywhere but with its owner.
    const secret = /aws_secret_access_key = (\S+)/.exec(snippet.out)![1]!
    for (const name of ['gateway.log', 'audit/00000001.jsonl']) {
      expect((await readFile(inDirectory(name), 'utf8')).includes(secret)).toBe(false)
    }
  })
})

describe('hsmgate serve', () => {
  it('reads its configuration again on SIGHUP, keeps the old one when the new is wrong, and drains on SIGTERM', {
    timeout: patience,
  }, async () => {
    expect((await runHsmgateProcess(['init', '--directory', directory])).code).toBe(0)
    const file = inDirectory('config.json')
    const text = (await readFile(file, 'utf8')).replaceAll(/"port": \d+/g, '"port": 0')
    await writeFile(file, text)

    await using running = startHsmgate(['serve', '--config', file, '--json'])
    await running.output(/"ready": true/)
    await writeFile(file, text.replace('"development"', '"develop"'))
    running.kill('SIGHUP')
    await running.output(/configuration not reloaded; .*\ndevelop: is an unknown key/)
    expect((await hsmgate('token', 'list')).code).toBe(1) // the command reads the broken file, too
    await writeFile(file, text)
    expect((await hsmgate('token', 'list')).code).toBe(0)
    await writeFile(file, text.replace('{', '{"regions": ["eu-west-1"],'))
    running.kill('SIGHUP')
    await running.output(/these changes need a restart: regions/)
    running.kill('SIGTERM')
    const { code, out } = await running.ended
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      ready: true,
      endpoints: {
        kms: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
        operatorSocket: inDirectory('run/operator.sock'),
      },
    })
  })
})
