/** A journal in a folder of its own, with records to fill it and a software key to sign it. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { AuditedCall, CheckpointSigner } from '../../src/audit/audit.ts'
import { type JournalOptions, type OpenedJournal, openJournal } from '../../src/audit/journal.ts'
import { loadAddon } from '../../src/hsm/worker/addon.ts'

export interface JournalFolder extends Disposable {
  readonly directory: string
  open(changes?: Partial<JournalOptions>): Promise<OpenedJournal>
}

export function createJournalFolder(parent = tmpdir()): JournalFolder {
  const directory = mkdtempSync(path.join(parent, 'hsmgate-journal-'))
  return {
    directory,
    open: (changes) =>
      openJournal({
        directory,
        durability: 'kernel',
        segmentBytes: 1_000_000,
        reserveBytes: 0,
        alarmFreeBytes: 0,
        checkpointRecords: 1_000_000,
        checkpointMinutes: 1000,
        lockFile: loadAddon().lockFile,
        ...changes,
      }),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  }
}

export function createSoftwareSigner(): CheckpointSigner & { readonly publicKeyText: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  return {
    publicKeyText: spki.toString('base64'),
    catalogRevision: async () => 7,
    sign: async (statement) => ({
      keyId: 'checkpoint-1',
      algorithm: 'ECDSA_SHA_256',
      signature: sign('sha256', statement, privateKey),
      publicKey: spki,
    }),
  }
}

export function createAuditedCall(number: number): AuditedCall {
  return {
    door: 'kms',
    operation: 'Encrypt',
    readOnly: true,
    requestId: `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`,
    receivedAt: 1_700_000_000_000 + number,
    region: 'us-east-1',
    source: { ip: '127.0.0.1', userAgent: 'test' },
    principal: { type: 'user', arn: 'arn:aws:iam::000000000000:user/u', account: '000000000000', principalId: 'AIDAU' },
    requestParameters: { keyId: 'alias/ä', number },
    responseElements: null,
    resources: [],
  }
}

export async function appendCalls(journal: OpenedJournal, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, number) => journal.appendCall(createAuditedCall(number))))
}
