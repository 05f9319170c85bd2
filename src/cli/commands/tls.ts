/** `hsmgate tls …`: keys of TLS servers, the tokens that are bound to them, their certificates. */
import type { Command } from 'commander'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import {
  type CommonOptions,
  formatFields,
  formatTable,
  formatTime,
  printable,
  show,
  type Terminal,
} from '../terminal.ts'
import { collectNames, type PlaceOptions, withPlace, writeCertificate } from '../tls-options.ts'
import { addTlsBind, type Binding } from './tls-bind.ts'
import { addTlsDoctor } from './tls-doctor.ts'
import { addTlsRelay } from './tls-relay.ts'
import { addTlsShow } from './tls-show.ts'

interface CreateOptions extends PlaceOptions {
  readonly spec: string
  readonly alias?: string
  readonly description?: string
  readonly group?: string
}

interface CertificateOptions extends PlaceOptions {
  readonly key: string
  readonly subject?: string
  readonly san: readonly string[]
  readonly out?: string
  readonly force?: true
  readonly days?: string
}

interface CreatedKey {
  readonly arn: string
  readonly keyId: string
  readonly spec: string
  readonly alias?: string
}

const specs = 'RSA_2048, RSA_3072, RSA_4096, ECC_NIST_P256, ECC_NIST_P384, ECC_NIST_P521 or ECC_NIST_EDWARDS25519'

export function addTls(program: Command, terminal: Terminal): void {
  const tls = program.command('tls').description('TLS servers whose keys stay in the module')

  const create = withPlace(tls.command('create-key').description('make a key for a TLS server'))
    .requiredOption('--spec <spec>', specs)
    .option('--alias <name>', 'give the key this alias')
    .option('--description <text>', 'description of the key')
    .option('--group <name>', 'group of tokens (default: the default group)')
  addAction<CreateOptions, []>(create, async (options) => {
    const { spec, alias, description, group, account, region } = options
    const question = { spec, alias, description, group, account, region }
    const created = await askGateway<CreatedKey>(options, terminal, 'tls', 'create-key', question)
    show(terminal, options, created, ({ arn, spec: made, alias: given }) =>
      formatFields([['arn', arn], ['spec', made], ...(given === undefined ? [] : [['alias', given] as const])]),
    )
  })

  addTlsBind(tls, terminal)
  addTlsShow(tls, terminal)

  const list = tls.command('list').description('list what may sign with keys of TLS servers')
  list.option('--account <id>', 'account (default: all)')
  addAction<{ readonly account?: string }, []>(list, async (options) => {
    const { account } = options
    const answer = await askGateway<{ readonly bindings: readonly Binding[] }>(options, terminal, 'tls', 'list', {
      account,
    })
    show(terminal, options, answer, ({ bindings }) =>
      formatTable(
        ['NAME', 'KEY', 'POLICIES', 'USERS', 'RELAYS', 'RATE', 'AT ONCE', 'TOKEN', 'MADE'],
        bindings.map((binding) => [
          binding.name,
          binding.key.slice(binding.key.indexOf('key/') + 4),
          binding.policies.join(','),
          binding.users === 'any' ? 'any' : binding.users.join(',') || '-',
          binding.relays.map((digest) => digest.slice(0, 8)).join(',') || '-',
          binding.ratePerSecond ?? '-',
          binding.concurrency ?? '-',
          binding.tokenDigest.slice(0, 8),
          formatTime(binding.createdAt),
        ]),
      ),
    )
  })

  const revoke = tls.command('revoke').description('take a token back: nobody signs with it any more')
  revoke.argument('<name>', 'name of the binding')
  revoke.option('--account <id>', 'account (default: the first one configured)')
  addAction<{ readonly account?: string }, [string]>(revoke, async (options, name) => {
    const { account } = options
    await askGateway(options, terminal, 'tls', 'revoke', { name, account })
    show(terminal, options, { name, revoked: true }, () => `${printable(name)} is revoked\n`)
  })

  const certified = (command: Command) =>
    withPlace(command)
      .requiredOption('--key <key>', 'key id, ARN or alias')
      .option('--subject <name>', 'distinguished name, such as CN=shop.example,O=Shop (default: the first --san)')
      .option('--san <name>', 'DNS name or IP address; may be repeated', collectNames, [])
      .option('--out <file>', 'write it to this file instead of standard output')
      .option('--force', 'replace the file when it is there')
  const ask = <T>(options: CertificateOptions & CommonOptions, verb: string, days?: number): Promise<T> => {
    const { key, subject, san, account, region } = options
    const names = { ...(subject === undefined ? {} : { subject }), ...(san.length === 0 ? {} : { san: san.join(',') }) }
    return askGateway<T>(options, terminal, 'tls', verb, { key, ...names, account, region, days })
  }

  const csr = certified(tls.command('csr').description('make a certificate request, signed in the module'))
  addAction<CertificateOptions, []>(csr, async (options) => {
    const { request } = await ask<{ readonly request: string }>(options, 'csr')
    await writeCertificate(terminal, options, 'request', request)
  })

  const selfSigned = certified(
    tls.command('self-signed').description('make a certificate that vouches for itself, for tests'),
  ).option('--days <number>', 'how long it is valid', '30')
  addAction<CertificateOptions, []>(selfSigned, async (options) => {
    const { certificate } = await ask<{ readonly certificate: string }>(options, 'self-signed', Number(options.days))
    await writeCertificate(terminal, options, 'certificate', certificate)
  })

  addTlsRelay(tls, terminal)
  addTlsDoctor(tls, terminal)
}
