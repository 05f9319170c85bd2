import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Config, formatConfig, isLoopback } from '../../../src/config/config.ts'
import { checkFiles } from '../../../src/config/files.ts'
import { configPaths, loadConfig, parseConfig } from '../../../src/config/load.ts'
import { formatProblems, type Problem, ProblemsError } from '../../../src/problem.ts'

const token = { module: '/lib/hsm.so', label: 'main', pinFile: 'main.pin' }
const tokens = { main: token }
const file = '/srv/gate/config.json'

const parse = (document: object, environment = {}) =>
  parseConfig(JSON.stringify({ tokens, ...document }), file, environment)

function problemsOf(document: object | string): readonly Problem[] {
  try {
    parseConfig(typeof document === 'string' ? document : JSON.stringify(document), file, {})
  } catch (error) {
    if (error instanceof ProblemsError) return error.problems
    throw error
  }
  return []
}

const places = (document: object) => problemsOf({ tokens, ...document }).map(({ at }) => at)

describe('a configuration with one token', () => {
  it('has a default for everything else', () => {
    expect(parse({})).toMatchObject({
      partition: 'aws',
      accounts: ['000000000000'],
      regions: ['us-east-1', 'us-west-2', 'eu-west-1'],
      listen: {
        kms: { address: '127.0.0.1', port: 8600 },
        xks: null,
        operator: { http: { address: '127.0.0.1', port: 8609 }, socket: '/run/hsmgate/operator.sock' },
        offload: { socket: '/run/hsmgate/sign.sock' },
      },
      tokens: { main: { module: '/lib/hsm.so', profile: 'generic', workers: 2, env: {} } },
      groups: { default: { tokens: ['main'] } },
      defaultGroup: 'default',
      catalog: { kind: 'sqlite', file: '/var/lib/hsmgate/catalog.sqlite' },
      audit: { directory: '/var/lib/hsmgate/audit', durability: 'kernel' },
      development: false,
      insecure: false,
      stateDirectory: '/var/lib/hsmgate',
      runDirectory: '/run/hsmgate',
    })
  })

  it('keeps state and sockets beside the file in development', () => {
    expect(parse({ development: true })).toMatchObject({
      stateDirectory: '/srv/gate',
      runDirectory: '/srv/gate/run',
      catalog: { file: '/srv/gate/catalog.sqlite' },
      listen: { operator: { socket: '/srv/gate/run/operator.sock' } },
    })
  })

  it('uses the folders that systemd made', () => {
    expect(parse({}, { STATE_DIRECTORY: '/state', RUNTIME_DIRECTORY: '/runtime' })).toMatchObject({
      stateDirectory: '/state',
      runDirectory: '/runtime',
    })
  })

  it('resolves relative paths against the folder of the file', () => {
    const { tokens: parsed, audit } = parse({ audit: { directory: '../journal' } })
    expect([parsed.main?.pinFile, audit.directory]).toEqual(['/srv/gate/main.pin', '/srv/journal'])
  })

  it('is frozen all the way down', () => {
    const config = parse({})
    const frozen = (value: unknown): boolean =>
      typeof value !== 'object' || value === null || (Object.isFrozen(value) && Object.values(value).every(frozen))
    expect(frozen(config)).toBe(true)
  })

  it('prints as JSON that is valid again', () => {
    const { file: _file, stateDirectory: _state, runDirectory: _run, ...document } = JSON.parse(formatConfig(parse({})))
    expect(parseConfig(JSON.stringify(document), file, {})).toEqual(parse({}))
  })
})

describe('problems', () => {
  it('are reported all at once, each with its place, cause and remedy', () => {
    const problems = problemsOf({
      regionz: [],
      accounts: ['12'],
      listen: { kms: { port: '8600' } },
      tokens: { main: { modul: '/x', label: 'a', serial: 'b', pinFile: 'p' } },
    })
    expect(problems.map(({ at }) => at).sort()).toEqual(
      ['accounts[0]', 'listen.kms.port', 'regionz', 'tokens.main.modul', 'tokens.main.module'].sort(),
    )
    expect(problems.every(({ cause, remedy }) => cause && remedy)).toBe(true)
    expect(formatProblems(problems)).toContain("did you mean 'regions'?")
  })

  it('never quote a value, which may be a misplaced secret', () => {
    const texts = [
      problemsOf({ tokens: { main: { ...token, pin: 's3cret-pin', workers: 's3cret-pin', profile: 's3cret-pin' } } }),
      problemsOf('{"tokens": {"main": {"pinFile": "s3cret-pin" "x"}}}'),
    ].map(formatProblems)
    expect(texts.join('')).not.toContain('s3cret')
  })

  it('in the JSON name line and column', () => {
    expect(problemsOf('{\n  "tokens": }\n')[0]).toMatchObject({ at: file, cause: 'is not JSON (line 2, column 13)' })
    expect(problemsOf('')[0]?.cause).toBe('is not JSON: it is empty')
    expect(problemsOf('{"tokens":')[0]?.cause).toBe('is not JSON: it ends too early')
  })

  it.each([
    ['no tokens', { tokens: {} }, 'tokens'],
    ['a token without a name', { tokens: { main: { module: '/x', pinFile: 'p' } } }, 'tokens.main'],
    ['a token named twice', { tokens: { main: { ...token, serial: '1' } } }, 'tokens.main'],
    ['a token name that is no name', { tokens: { 'a b': token } }, 'tokens.a b'],
    ['a group with an unknown token', { groups: { g: { tokens: ['other'] } } }, 'groups.g.tokens'],
    [
      'a token in two groups',
      { groups: { a: { tokens: ['main'] }, b: { tokens: ['main'] } }, defaultGroup: 'a' },
      'groups.b.tokens',
    ],
    ['an unknown default group', { defaultGroup: 'other' }, 'defaultGroup'],
    ['several tokens without groups', { tokens: { a: token, b: token } }, 'groups'],
    [
      'several groups without a default',
      { tokens: { a: token, b: token }, groups: { a: { tokens: ['a'] }, b: { tokens: ['b'] } } },
      'defaultGroup',
    ],
    ['two doors on one port', { listen: { kms: { port: 8609 } } }, 'listen.operator.http'],
    ['a proxy that is no address', { trustedProxies: ['10.0.0.0/33'] }, 'trustedProxies[0]'],
    ['an option of a door that has none', { quotas: { requestsPerSecond: 1 } }, 'quotas.requestsPerSecond'],
    ['a door that is no object', { listen: { kms: 8600 } }, 'listen.kms'],
  ])('are found: %s', (_what, document, at) => {
    expect(places(document)).toContain(at)
  })

  it('are all that any document can cause', () => {
    const known = ['tokens', 'main', 'listen', 'kms', 'port', 'groups', 'audit', 'module', 'pinFile', 'regions']
    const key = fc.oneof(fc.constantFrom(...known), fc.string())
    const leaf = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null))
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 4 },
        leaf,
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(key, tie('tree'), { maxKeys: 4 }),
      ),
    }))
    fc.assert(
      fc.property(tree, (document) => {
        expect(Array.isArray(problemsOf(JSON.stringify(document)))).toBe(true)
      }),
      { numRuns: 300 },
    )
  })
})

describe('the token of a custom key store', () => {
  const cluster = { module: '/m.so', label: 'cluster', profile: 'softhsm', clusterId: 'cluster-2345abcdefg' } as const
  const main = { module: '/m.so', label: 'main', pinFile: 'pin', profile: 'softhsm' } as const
  const tokens = { main, cluster }

  it('has a trust anchor, so that not everybody can claim it', () => {
    expect(places({ tokens, development: false })).toEqual(['tokens.cluster.trustAnchorFile'])
    expect(
      places({ tokens: { main, cluster: { ...cluster, trustAnchorFile: 'ca.pem' } }, development: false }),
    ).toEqual([])
    expect(places({ tokens, development: true })).toEqual([])
  })
})

describe('plain HTTP', () => {
  const listen = { kms: { address: '0.0.0.0' } }

  it('is refused beyond loopback', () => {
    expect(places({ listen })).toEqual(['listen.kms'])
  })

  it('is allowed there by insecure, and not needed with TLS', () => {
    expect(parse({ listen, insecure: true }).listen.kms?.address).toBe('0.0.0.0')
    const tls = { certificateFile: 'c.pem', keyFile: 'c.key' }
    expect(parse({ listen: { kms: { address: '0.0.0.0', tls } } }).listen.kms?.tls?.keyFile).toBe('/srv/gate/c.key')
  })

  it.each([
    ['127.0.0.1', true],
    ['127.9.9.9', true],
    ['::1', true],
    ['localhost', true],
    ['0.0.0.0', false],
    ['::', false],
    ['127.0.0.1.example', false],
    ['10.0.0.1', false],
  ])('knows whether %s is loopback', (address, expected) => {
    expect(isLoopback(address)).toBe(expected)
  })
})

describe('the catalog', () => {
  const server = (changes: object) => ({
    catalog: { kind: 'postgresql', postgresql: { host: '/run/postgresql', ...changes } },
  })

  it('is a file in the state folder unless a server is named', () => {
    expect(parse({}).catalog).toEqual({ kind: 'sqlite', file: '/var/lib/hsmgate/catalog.sqlite' })
    expect(parse(server({ passwordFile: 'db.password' })).catalog).toEqual({
      kind: 'postgresql',
      postgresql: {
        host: '/run/postgresql',
        port: 5432,
        database: 'hsmgate',
        user: 'hsmgate',
        passwordFile: '/srv/gate/db.password',
        connections: 6,
      },
    })
  })

  it('is of one kind', () => {
    expect(places({ catalog: { kind: 'postgresql' } })).toEqual(['catalog.postgresql'])
    expect(places({ catalog: { postgresql: { host: 'db' } } })).toContain('catalog.postgresql')
    const both = { catalog: { ...server({}).catalog, file: 'catalog.sqlite' } }
    expect(places(both)).toEqual(['catalog.file'])
    expect(places(server({ host: 'postgres://user:secret@db/x' }))).toEqual(['catalog.postgresql.host'])
    expect(places(server({ password: 'secret' }))).toEqual(['catalog.postgresql.password'])
    expect(places(server({ connections: 2 }))).toEqual(['catalog.postgresql.connections'])
  })

  it('is reached over TLS beyond this machine, unless insecure says otherwise', () => {
    for (const host of ['localhost', '127.0.0.1', '::1']) expect(places(server({ host }))).toEqual([])
    expect(places(server({ host: 'db.example' }))).toEqual(['catalog.postgresql.tls'])
    expect(places({ ...server({ host: 'db.example' }), insecure: true })).toEqual([])
    expect(places(server({ host: 'db.example', tls: {} }))).toEqual([])
    expect(places(server({ tls: { keyFile: 'client.key' } }))).toEqual(['catalog.postgresql.tls'])
  })
})

describe('the file', () => {
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'hsmgate-config-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  const write = (name: string, content: string, mode = 0o600) => {
    writeFileSync(path.join(directory, name), content)
    chmodSync(path.join(directory, name), mode)
    return path.join(directory, name)
  }
  const load = (document: object): Config => loadConfig([write('config.json', JSON.stringify(document))], {})

  it('is the given one, or the one of the environment, or one of two usual ones', () => {
    expect(configPaths('a.json', { HSMGATE_CONFIG: 'b.json' })).toEqual([path.resolve('a.json')])
    expect(configPaths(undefined, { HSMGATE_CONFIG: 'b.json' })).toEqual([path.resolve('b.json')])
    expect(configPaths(undefined, {})).toEqual([path.resolve('.hsmgate/config.json'), '/etc/hsmgate/config.json'])
  })

  it('is the first that exists', () => {
    const present = write('config.json', JSON.stringify({ tokens }))
    expect(loadConfig([path.join(directory, 'missing.json'), present], {}).file).toBe(present)
  })

  it.each([
    ['is missing', [], 'does not exist'],
    ['is missing in all places', ['also-missing.json'], 'no configuration file is there'],
  ])('that %s is a problem with a remedy', (_what, more, cause) => {
    const paths = ['missing.json', ...more].map((name) => path.join(directory, name))
    expect(() => loadConfig(paths, {})).toThrow(
      expect.objectContaining({ problems: [expect.objectContaining({ cause })] }),
    )
  })

  it('that is a folder is a problem', () => {
    mkdirSync(path.join(directory, 'folder.json'))
    expect(() => loadConfig([path.join(directory, 'folder.json')], {})).toThrow(ProblemsError)
  })

  it('names files that must exist and be closed to others', () => {
    const config = load({ tokens: { main: { ...token, module: 'hsm.so' } } })
    expect(checkFiles(config).map(({ at }) => at)).toEqual(['tokens.main.module', 'tokens.main.pinFile'])
    write('hsm.so', '', 0o755)
    write('main.pin', '1234', 0o644)
    expect(checkFiles(config)).toEqual([
      {
        at: 'tokens.main.pinFile',
        cause: `${directory}/main.pin is open to other users`,
        remedy: `chmod 600 ${directory}/main.pin`,
      },
    ])
    write('main.pin', '1234')
    expect(checkFiles(config)).toEqual([])
  })

  it('names the password of a database, which must be closed to others', () => {
    const passwordFile = path.join(directory, 'db.password')
    const withPassword = { catalog: { kind: 'postgresql', postgresql: { host: '/run/postgresql', passwordFile } } }
    const found = () => checkFiles(parse(withPassword)).filter(({ at }) => at.startsWith('catalog'))
    expect(found()).toMatchObject([
      { at: 'catalog.postgresql.passwordFile', cause: expect.stringContaining('not exist') },
    ])
    writeFileSync(passwordFile, 'secret', { mode: 0o644 })
    expect(found()).toMatchObject([{ cause: expect.stringContaining('open to other users') }])
    chmodSync(passwordFile, 0o600)
    expect(found()).toEqual([])
  })

  it('names TLS files that must be readable, and a key that must be closed to others', () => {
    write('hsm.so', '', 0o755)
    write('main.pin', '1234')
    write('c.pem', '')
    const tls = { certificateFile: 'c.pem', keyFile: 'c.key' }
    const config = load({ tokens: { main: { ...token, module: 'hsm.so' } }, listen: { kms: { tls } } })
    expect(checkFiles(config).map(({ at }) => at)).toEqual(['listen.kms.tls.keyFile'])
    write('c.key', '', 0o640)
    expect(checkFiles(config).map(({ cause }) => cause)).toEqual([`${directory}/c.key is open to other users`])
  })
})
