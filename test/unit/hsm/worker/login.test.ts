import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WorkerConfiguration } from '../../../../src/hsm/frames.ts'
import type { NativeModule, SlotDescription } from '../../../../src/hsm/worker/addon.ts'
import { findSlot, readPin } from '../../../../src/hsm/worker/login.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-pin-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

async function pinFile(content: string | Buffer): Promise<string> {
  const file = path.join(folder, `pin-${Math.random()}`)
  await writeFile(file, content, { mode: 0o600 })
  return file
}

describe('the PIN file', () => {
  it('is read without the line end that an editor leaves', async () => {
    for (const content of ['1234', '1234\n', '1234\r\n']) {
      expect(readPin(await pinFile(content)).pin.toString()).toBe('1234')
    }
    expect(readPin(await pinFile(' 12 34 ')).pin.toString()).toBe(' 12 34 ')
  })

  it('is identified by inode, change time in nanoseconds and size', async () => {
    const file = await pinFile('1234')
    const { ino, ctimeNs, size } = await stat(file, { bigint: true })
    expect(readPin(file).identity).toEqual({ inode: `${ino}`, changeTimeNs: `${ctimeNs}`, bytes: Number(size) })
  })

  it('is refused when missing, empty, too long or a folder, without quoting it', async () => {
    const refused = (file: string) => {
      try {
        readPin(file)
      } catch (error) {
        return (error as { failure: unknown }).failure
      }
      return undefined
    }
    const answer = (detail: RegExp) => expect.objectContaining({ action: 'O', detail: expect.stringMatching(detail) })
    expect(refused(path.join(folder, 'absent'))).toEqual(answer(/ENOENT/))
    expect(refused(await pinFile('\n\n'))).toEqual(answer(/empty/))
    expect(refused(await pinFile(Buffer.alloc(1025, 0x31)))).toEqual(answer(/too long/))
    expect(refused(folder)).toEqual(answer(/EISDIR/))
  })
})

describe('the token', () => {
  const slot = (label: string, serial: string, tokenPresent = true) =>
    ({ label, serial, tokenPresent, slot: 2305843009213693953n }) as SlotDescription
  const moduleWith = (...slots: SlotDescription[]) => ({ slots: () => slots }) as unknown as NativeModule
  const byLabel = { label: 'mine' } as WorkerConfiguration
  const bySerial = { serial: '42' } as WorkerConfiguration

  it('is found by label or serial among all slots', () => {
    const module = moduleWith(slot('other', '41'), slot('mine', '42'), slot('', '', false))
    expect(findSlot(module, byLabel).serial).toBe('42')
    expect(findSlot(module, bySerial).label).toBe('mine')
  })

  it('is not guessed when two carry the label', () => {
    expect(() => findSlot(moduleWith(slot('mine', '41'), slot('mine', '42')), byLabel)).toThrow(/name one by serial/)
  })

  it('is missing when its slot is empty', () => {
    expect(() => findSlot(moduleWith(slot('mine', '42', false)), byLabel)).toThrow(/no token with label mine/)
  })
})
