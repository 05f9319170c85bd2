/** `hsmgate tls relay …`: which relays of other hosts the gateway lets in. */
import type { Command } from 'commander'
import { addAction } from '../action.ts'
import { publicFileMode } from '../files.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, formatTable, formatTime, printable, show, type Terminal } from '../terminal.ts'
import { readSmallFile } from '../tls-files.ts'
import { type FileOptions, refuseExisting, writeCertificate, writeNewFile } from '../tls-options.ts'

interface Relay {
  readonly name: string
  readonly digest: string
  readonly notAfter: number
  readonly approvedAt: number
}

interface ApproveOptions {
  readonly csr: string
  readonly name: string
  readonly days: string
  readonly out: string
  readonly force?: true
}

export function addTlsRelay(tls: Command, terminal: Terminal): void {
  const relay = tls.command('relay').description('relays of other hosts')

  const approve = relay
    .command('approve')
    .description('sign the certificate of a relay; again with the same name and key to renew it')
    .requiredOption('--csr <file>', 'the request of the relay')
    .requiredOption('--name <name>', 'name of the relay')
    .option('--days <number>', 'how long the certificate is valid', '90')
    .requiredOption('--out <file>', 'where the certificate goes')
    .option('--force', 'replace the file when it is there')
  addAction<ApproveOptions, []>(approve, async (options) => {
    const { name, out } = options
    await refuseExisting(out, options.force === true)
    const question = { name, request: await readSmallFile(options.csr), days: Number(options.days) }
    const approved = await askGateway<Relay & { readonly certificate: string }>(
      options,
      terminal,
      'tls-relay',
      'approve',
      question,
    )
    await writeNewFile(out, approved.certificate, options.force === true, publicFileMode)
    const { digest, notAfter } = approved
    show(terminal, options, { name, digest, notAfter, file: out }, () =>
      formatFields([
        ['relay', name],
        ['digest', digest],
        ['valid until', formatTime(notAfter)],
        ['certificate', out],
      ]),
    )
  })

  const list = relay.command('list').description('list the relays')
  addAction<object, []>(list, async (options) => {
    const answer = await askGateway<{ readonly relays: readonly Relay[] }>(options, terminal, 'tls-relay', 'list')
    show(terminal, options, answer, ({ relays }) =>
      formatTable(
        ['NAME', 'VALID UNTIL', 'APPROVED', 'DIGEST'],
        relays.map(({ name, digest, notAfter, approvedAt }) => [
          name,
          formatTime(notAfter),
          formatTime(approvedAt),
          digest,
        ]),
      ),
    )
  })

  const revoke = relay.command('revoke').description('let a relay in no more').argument('<name>', 'name of the relay')
  addAction<object, [string]>(revoke, async (options, name) => {
    await askGateway(options, terminal, 'tls-relay', 'revoke', { name })
    show(terminal, options, { name, revoked: true }, () => `${printable(name)} is revoked\n`)
  })

  const authority = relay
    .command('authority')
    .description('the certificate that all certificates of relays are verified with')
    .option('--out <file>', 'write it to this file instead of standard output')
    .option('--force', 'replace the file when it is there')
  addAction<FileOptions, []>(authority, async (options) => {
    const { certificate } = await askGateway<{ readonly certificate: string }>(
      options,
      terminal,
      'tls-relay',
      'authority',
    )
    await writeCertificate(terminal, options, 'certificate', certificate)
  })
}
