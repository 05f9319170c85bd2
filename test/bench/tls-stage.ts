/**
 * What the TLS bench plays on: one SoftHSM2 token, a gateway before it, a relay before that, two keys, and every way in which a web server
 * can be given them. Processes are those that users run; all of it lies in temporary folders and on free ports of loopback.
 */
import { chmodSync, copyFileSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { completeDevelopmentTls } from '../../src/cli/development-ca.ts'
import { encodeReferencePem } from '../../src/tls-reference.ts'
import { runOk } from '../support/command.ts'
import { runHsmgateProcess, startHsmgate } from '../support/hsmgate-process.ts'
import { findFreePort } from '../support/nginx.ts'
import { bindKey } from '../support/offload.ts'
import { buildProvider } from '../support/provider.ts'
import { type ServedGateway, serveGateway } from '../support/served-gateway.ts'
import { createShimmedToken } from '../support/shim.ts'
import { openTlsSites, type TlsSite } from '../support/tls-sites.ts'

export const kinds = ['RSA-2048', 'P-256'] as const
export type Kind = (typeof kinds)[number]

/** Where a signature comes from. */
export type Source = 'file' | 'libp11' | 'gateway' | 'relay'

/** Under each source: what a server is configured with, and its environment. */
export interface KeySource {
  readonly env: Readonly<Record<string, string>>
  readonly pairs: Readonly<Record<Kind, { readonly certificate: string; readonly reference: string }>>
}

export interface Stage extends AsyncDisposable {
  /** Without `libp11` where Debian's libengine-pkcs11-openssl is not installed. */
  readonly sources: ReadonlyMap<Source, KeySource>
  /** What lies between server and module, for its CPU time. */
  signerPids(source: Source): readonly number[]
  /** The module alone: arguments of native/build/bench for one of the keys, and its environment. */
  rawSigner(kind: Kind): { readonly args: readonly string[]; readonly env: Readonly<Record<string, string>> }
  /** From now on everything reaches the module through the shim; servers with the source libp11 must be started again. */
  delayModule(): Promise<void>
  /** Milliseconds that each signature takes longer. @throws Error before `delayModule`. */
  setDelay(ms: number): void
}

const specs = { 'RSA-2048': 'RSA_2048', 'P-256': 'ECC_NIST_P256' } as const
/** Long: a machine without a free core must not fail what is only slow. */
const deadlineMs = 5000

/** `profileTo`: folder for CPU profiles of gateway and workers. */
export async function openStage(profileTo?: string): Promise<Stage> {
  buildProvider()
  await using undo = new AsyncDisposableStack()
  const shimmed = undo.use(await createShimmedToken())
  const { directory, label, pinFile } = shimmed
  const { SOFTHSM2_CONF, HSMGATE_SHIM_MODULE = '' }: Readonly<Record<string, string>> = shimmed.env
  const softhsm = { module: HSMGATE_SHIM_MODULE, env: { SOFTHSM2_CONF: SOFTHSM2_CONF as string } }
  let module: { readonly module: string; readonly env: Readonly<Record<string, string>> } = softhsm

  const folder = path.join(directory, 'bench')
  mkdirSync(folder)
  await completeDevelopmentTls(folder)
  const relayPort = await findFreePort()
  const tls = { certificateFile: path.join(folder, 'server.pem'), keyFile: path.join(folder, 'server.key') }
  const config = {
    listen: {
      kms: null,
      operator: { http: null },
      offload: { mode: '0666' },
      relay: { address: '127.0.0.1', port: relayPort, tls },
    },
    offload: { maxBudgetMs: deadlineMs },
  }
  const flags = profileTo === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${path.resolve(profileTo)}` }
  const serve = () => {
    const token = { ...shimmed, module: module.module, env: { ...module.env, ...flags } }
    return serveGateway(token as typeof shimmed, { config, environment: flags })
  }
  let gateway: ServedGateway = await serve()
  undo.defer(() => stop(gateway))

  const relayFolder = path.join(folder, 'relay')
  const relaySocket = path.join(relayFolder, 'sign.sock')
  const digest = await enroll(gateway, relayFolder, relaySocket, `127.0.0.1:${relayPort}`, path.join(folder, 'ca.pem'))
  const relay = undo.use(startHsmgate(['relay', 'run', '--config', path.join(relayFolder, 'relay.json'), '--json']))
  await relay.output(/"ready": true/)
  await relay.output(/a gateway can be reached/)

  const local = undo.use(openTlsSites(gateway, path.join(gateway.directory, 'run/sign.sock'), deadlineMs))
  const remote = undo.use(openTlsSites(gateway, relaySocket, deadlineMs))
  const made = {} as Record<Kind, TlsSite>
  const references = {} as Record<Kind, string>
  for (const kind of kinds) {
    const site = await local.make(specs[kind])
    made[kind] = site
    const { token } = await bindKey(gateway, site, { relays: [digest] })
    const publicKey = site.publicKey.export({ type: 'spki', format: 'der' })
    references[kind] = path.join(folder, `relay.${kind}.ref.pem`)
    writeFileSync(references[kind], encodeReferencePem({ publicKey, token }), { mode: 0o600 })
  }
  // Workers of Apache and HAProxy become www-data. (The token's own folder is none of theirs: a PIN file that changes has workers replaced.)
  for (const each of [directory, gateway.directory, path.join(gateway.directory, 'run'), folder, relayFolder]) {
    chmodSync(each, 0o711)
  }

  const pairsOf = (reference: (kind: Kind) => string): KeySource['pairs'] => {
    const pair = (kind: Kind) => ({ certificate: made[kind].certificate, reference: reference(kind) })
    return { 'RSA-2048': pair('RSA-2048'), 'P-256': pair('P-256') }
  }
  const engine = globSync('/usr/lib/*/engines-3/pkcs11.so')[0]
  if (engine !== undefined) await writePublicKey(shimmed, softhsm, made['P-256'], folder)
  const files = await makeFiles(folder)
  const listSources = () => {
    const sources = new Map<Source, KeySource>([
      ['file', { env: {}, pairs: files }],
      ['gateway', { env: local.env, pairs: pairsOf((kind) => made[kind].reference) }],
      ['relay', { env: remote.env, pairs: pairsOf((kind) => references[kind]) }],
    ])
    if (engine !== undefined) {
      const pin = readFileSync(pinFile, 'utf8').trim()
      const env = { ...module.env, OPENSSL_CONF: writeEngineConf(folder, engine, module.module, pin) }
      const uri = (kind: Kind) =>
        `engine:pkcs11:pkcs11:token=${label};object=${encodeURIComponent(labelOf(made[kind]))};type=private`
      sources.set('libp11', { env, pairs: pairsOf(uri) })
    }
    return sources
  }
  let sources = listSources()

  const kept = undo.move()
  return {
    get sources() {
      return sources
    },
    signerPids(source) {
      if (source === 'file' || source === 'libp11') return []
      return source === 'gateway' ? [gateway.pid] : [gateway.pid, relay.pid]
    },
    rawSigner(kind) {
      const [op, bytes] = kind === 'P-256' ? ['p256-sign', '32'] : ['rsa2048-pss', '32']
      const names = ['--module', module.module, '--label', label, '--pin-file', pinFile, '--key', labelOf(made[kind])]
      return { args: [...names, '--op', op as string, '--bytes', bytes as string, '--sessions', '1'], env: module.env }
    },
    async delayModule() {
      module = { module: shimmed.module, env: shimmed.env }
      await stop(gateway)
      gateway = await serve()
      sources = listSources()
      // The relay finds the new gateway by itself.
      await relay.output(/a gateway can be reached[\s\S]*a gateway can be reached/)
    },
    setDelay(ms) {
      if (module === softhsm) throw new Error('the module is not behind the shim')
      shimmed.rules(ms === 0 ? [] : [`C_Sign delay=${ms}`])
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

const labelOf = ({ keyId }: TlsSite) => `hsmgate-tls:${keyId}:1`

async function stop(gateway: ServedGateway): Promise<void> {
  gateway.kill('SIGTERM')
  await gateway.ended
}

/** What the operators of both sides do. Resolves with the digest of the relay's key. */
async function enroll(
  gateway: ServedGateway,
  out: string,
  socket: string,
  address: string,
  ca: string,
): Promise<string> {
  const name = 'bench'
  const words = ['relay', 'enroll', '--gateway', address, '--out', out, '--name', name]
  const { code, err } = await runHsmgateProcess(words)
  if (code !== 0) throw new Error(err)
  const request = readFileSync(path.join(out, 'relay.csr'), 'utf8')
  const approved = await gateway.ask<{ digest: string; certificate: string }>('tls-relay', 'approve', {
    name,
    request,
    days: 2,
  })
  writeFileSync(path.join(out, 'relay.crt'), approved.certificate)
  copyFileSync(ca, path.join(out, 'gateway-ca.pem'))
  const config = path.join(out, 'relay.json')
  const document = { ...JSON.parse(readFileSync(config, 'utf8')), socket, mode: '0666', maxBudgetMs: deadlineMs }
  writeFileSync(config, JSON.stringify(document))
  return approved.digest
}

/** Keys as servers have them today. */
async function makeFiles(folder: string): Promise<KeySource['pairs']> {
  const pair = async (kind: Kind, options: readonly string[]) => {
    const [certificate, reference] = [path.join(folder, `${kind}.crt`), path.join(folder, `${kind}.key`)]
    const words = [
      'req',
      '-x509',
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=localhost',
      '-keyout',
      reference,
      '-out',
      certificate,
    ]
    await runOk('openssl', [...words, ...options])
    return { certificate, reference }
  }
  return {
    'RSA-2048': await pair('RSA-2048', ['-newkey', 'rsa:2048']),
    'P-256': await pair('P-256', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']),
  }
}

/** libp11 takes the public key of a private EC key from an object beside it; the gateway keeps none in the token. */
async function writePublicKey(
  { label, pinFile }: { readonly label: string; readonly pinFile: string },
  { module, env }: { readonly module: string; readonly env: Readonly<Record<string, string>> },
  site: TlsSite,
  folder: string,
): Promise<void> {
  const pin = readFileSync(pinFile, 'utf8').trim()
  const login = ['--module', module, '--token-label', label, '--login', '--pin', 'env:BENCH_PIN']
  const ask = (words: readonly string[]) =>
    runOk('pkcs11-tool', [...login, ...words], { env: { ...env, PATH: '/usr/bin:/bin', BENCH_PIN: pin } })
  const listed = (await ask(['--list-objects', '--type', 'privkey'])).toString()
  const [, id = ''] = new RegExp(`label: +${labelOf(site)}\\n +ID: +([0-9a-f]+)`).exec(listed) ?? []
  const file = path.join(folder, 'public.der')
  writeFileSync(file, site.publicKey.export({ type: 'spki', format: 'der' }))
  await ask(['--write-object', file, '--type', 'pubkey', '--id', id, '--label', 'bench'])
}

/** libp11's engine works with `init = 1` alone. */
function writeEngineConf(folder: string, engine: string, module: string, pin: string): string {
  const file = path.join(folder, 'engine.cnf')
  const text = `openssl_conf = openssl_init
[openssl_init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = ${engine}
MODULE_PATH = ${module}
PIN = ${pin}
init = 1
`
  writeFileSync(file, text, { mode: 0o600 })
  return file
}
