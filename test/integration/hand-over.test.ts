/** A gateway that hands over to a new process of itself while clients work: nobody notices. */
import { copyFile, mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { CreateKeyCommand, DecryptCommand, EncryptCommand, KMSClient } from '@aws-sdk/client-kms'
import { expect, it } from 'vitest'
import { verifyJournal } from '../../src/audit/verify.ts'
import type { GroupState } from '../../src/hsm/port.ts'
import { testRegion } from '../support/gateway.ts'
import { isAlive, serveGateway } from '../support/served-gateway.ts'
import { createTestToken } from '../support/softhsm.ts'

const patience = { timeout: 120_000 }

it('loses no request while SIGUSR2 hands over, twice, and leaves one whole journal', patience, async () => {
  await using token = await createTestToken()
  await using served = await serveGateway(token)
  // Sends again what met the end of an idle connection, as SDKs do: HTTP/1.1 has no other way (RFC 9112, section 9.3.1).
  const { endpoint, credentials } = served
  const kms = new KMSClient({ endpoint, credentials, region: testRegion })
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  const KeyId = KeyMetadata!.KeyId!

  const failures: unknown[] = []
  let calls = 0
  let stopping = false
  const work = async (): Promise<void> => {
    while (!stopping) {
      try {
        const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
        await kms.send(new DecryptCommand({ CiphertextBlob }))
        calls += 2
      } catch (cause) {
        failures.push(cause)
      }
    }
  }
  const all = [1, 2, 3, 4].map(work)
  const pids: number[] = [served.pid]
  // A successor has the first one's output: its end is awaited with it.
  using _successors = {
    [Symbol.dispose]() {
      for (const pid of pids.slice(1)) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    },
  }
  try {
    for (let i = 0; i < 2; i++) {
      process.kill(pids.at(-1)!, 'SIGUSR2')
      const successor = await served.output(
        new RegExp(`(?:process \\d+ takes over[\\s\\S]*){${i}}process (\\d+) takes over`),
      )
      pids.push(Number(successor[1]))
      await expect.poll(() => isAlive(pids.at(-2)!), { timeout: 30_000 }).toBe(false)
      const before = calls
      await expect.poll(() => calls, { timeout: 30_000 }).toBeGreaterThan(before + 20)
    }
  } finally {
    stopping = true
    await Promise.all(all)
  }
  expect(failures).toEqual([])
  expect(calls).toBeGreaterThan(40)

  // The operator's socket moved along, too.
  const { groups } = await served.ask<{ groups: readonly GroupState[] }>('token', 'list')
  expect(groups[0]?.workers.every(({ state }) => state === 'ready')).toBe(true)
  process.kill(pids.at(-1)!, 'SIGTERM')
  await expect.poll(() => isAlive(pids.at(-1)!), { timeout: 30_000 }).toBe(false)
  const verdict = await verifyJournal(path.join(served.directory, 'audit'))
  expect(verdict.problems).toEqual([])
})

it('goes on serving when the new process cannot start', patience, async () => {
  await using token = await createTestToken()
  await using served = await serveGateway(token)
  const kms = served.client()
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  await writeFile(path.join(served.directory, 'config.json'), '{')
  served.kill('SIGUSR2')
  await served.output(/no hand-over/)
  await kms.send(new EncryptCommand({ KeyId: KeyMetadata!.KeyId!, Plaintext: Buffer.from('x') }))
})

it('starts the checkout that the link to its launcher leads to by then', patience, async () => {
  await using token = await createTestToken()
  const checkout = path.resolve(import.meta.dirname, '../..')
  const placeCheckout = async (name: string): Promise<string> => {
    const folder = path.join(token.directory, name)
    await mkdir(folder)
    for (const part of ['src', 'native', 'softhsm', 'node_modules', 'package.json']) {
      await symlink(path.join(checkout, part), path.join(folder, part))
    }
    await copyFile(path.join(checkout, 'hsmgate'), path.join(folder, 'hsmgate'))
    return folder
  }
  const link = path.join(token.directory, 'current')
  await symlink(await placeCheckout('old'), link)
  // The launcher of this checkout comes as the first word of all.
  const through = ['/bin/bash', '-c', 'shift; exec "$0" "$@"', path.join(link, 'hsmgate')]
  await using served = await serveGateway(token, { through })
  await symlink(await placeCheckout('new'), `${link}.next`)
  await rename(`${link}.next`, link)

  served.kill('SIGUSR2')
  const pid = Number((await served.output(/process (\d+) takes over/))[1])
  using _successor = {
    [Symbol.dispose]() {
      if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    },
  }
  const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0')
  await expect.poll(() => isAlive(served.pid), { timeout: 30_000 }).toBe(false)
  expect(command.find((word) => word.endsWith('/src/main.ts'))).toBe(path.join(token.directory, 'new/src/main.ts'))
  const { groups } = await served.ask<{ groups: readonly GroupState[] }>('token', 'list')
  expect(groups[0]?.workers.every(({ state }) => state === 'ready')).toBe(true)
})
