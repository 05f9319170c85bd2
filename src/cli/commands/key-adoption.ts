/** `hsmgate key adopt`, `hsmgate key reconcile`: objects that were in a token before the gateway, or that its catalog does not know. */
import type { Command } from 'commander'
import type { Reconciliation } from '../../keys/keys.ts'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, formatTable, type Row, show, type Terminal } from '../terminal.ts'

interface AdoptOptions {
  readonly account?: string
  readonly region?: string
  readonly label?: string
  readonly objectId?: string
  readonly class?: string
  readonly usage?: string
  readonly purpose?: string
  readonly alias?: string
  readonly allowWeak?: true
  readonly description?: string
  readonly group?: string
}

interface Adopted {
  readonly arn: string
  readonly alias?: string
  readonly spec: string
  readonly usage: string
  readonly purpose: string
  readonly group: string
  readonly adoption: { readonly usages: readonly string[]; readonly weaknesses: readonly string[] }
}

type Reconciled = Reconciliation & { readonly groups: readonly string[] }

export function addKeyAdoption(key: Command, terminal: Terminal): void {
  const adopt = key
    .command('adopt')
    .description('register a key that is in the token already, without changing it')
    .option('--label <text>', 'CKA_LABEL of the object')
    .option('--object-id <hex>', 'CKA_ID of the object')
    .option('--class <class>', 'private or secret, where label or id alone do not tell')
    .option('--usage <usage>', 'SIGN_VERIFY, ENCRYPT_DECRYPT, .. where the object permits several')
    .option('--purpose <purpose>', 'kms, tls or xks (default: kms)')
    .option('--alias <name>', 'give the key this alias')
    .option('--allow-weak', 'also when its value can leave the token; the key is marked')
    .option('--description <text>', 'description of the key')
    .option('--group <name>', 'group of tokens (default: the default group)')
    .option('--account <id>', 'account (default: the first one configured)')
    .option('--region <name>', 'Region (default: the first one configured)')
  addAction<AdoptOptions, []>(adopt, async (options) => {
    const { class: objectClass, label, objectId, usage, purpose, alias, description, group, account, region } = options
    const named = { label, objectId, objectClass, usage, purpose, alias, description, group, account, region }
    const question = { ...named, allowWeak: options.allowWeak }
    show(terminal, options, await askGateway<Adopted>(options, terminal, 'key', 'adopt', question), formatAdopted)
  })

  const reconcile = key
    .command('reconcile')
    .description('compare tokens with the catalog: unknown objects, missing ones, weak ones; touches nothing')
    .option('--group <name>', 'group of tokens (default: all)')
  addAction<{ readonly group?: string }, []>(reconcile, async (options) => {
    const answer = await askGateway<Reconciled>(options, terminal, 'key', 'reconcile', { group: options.group })
    show(terminal, options, answer, formatReconciliation)
  })
}

function formatAdopted({ arn, alias, spec, usage, purpose, group, adoption }: Adopted): string {
  return formatFields([
    ['arn', arn],
    ...(alias === undefined ? [] : [['alias', alias] as const]),
    ['spec', spec],
    ['usage', usage],
    ['purpose', purpose],
    ['group', group],
    ['permits', adoption.usages.join(', ')],
    ...(adoption.weaknesses.length === 0 ? [] : [['weak', adoption.weaknesses.join(', ')] as const]),
  ])
}

function formatReconciliation({ groups, unknown, missing, weak }: Reconciled): string {
  const parts = [
    section(
      `objects that the catalog does not know: ${unknown.length}`,
      ['GROUP', 'CLASS', 'SPEC', 'LABEL', 'OBJECT ID', 'NOTE'],
      unknown.map(({ group, objectClass, spec, label, objectId, ours }) => [
        group,
        objectClass,
        spec ?? '-',
        label,
        objectId,
        ours ? "hsmgate's own, forgotten" : '',
      ]),
    ),
    section(
      `keys whose object is not in the token: ${missing.length}`,
      ['GROUP', 'ACCOUNT', 'REGION', 'KEY ID', 'OBJECT ID', 'BACKING KEY'],
      missing.map(({ group, account, region, keyId, objectId, state }) => [
        group,
        account,
        region,
        keyId,
        objectId,
        state,
      ]),
    ),
    section(
      `weak objects: ${weak.length}`,
      ['GROUP', 'CLASS', 'LABEL', 'OBJECT ID', 'WEAK', 'IN THE CATALOG'],
      weak.map(({ group, objectClass, label, objectId, weaknesses, isKnown }) => [
        group,
        objectClass,
        label,
        objectId,
        weaknesses.join(', '),
        isKnown ? 'yes' : 'no',
      ]),
    ),
  ]
  return `compared: ${groups.join(', ')}\n\n${parts.join('\n')}`
}

function section(title: string, heads: readonly string[], rows: readonly Row[]): string {
  return rows.length === 0 ? `${title}\n` : `${title}\n${formatTable(heads, rows)}`
}
