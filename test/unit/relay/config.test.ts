import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { ProblemsError } from '../../../src/problem.ts'
import { loadRelayConfig, parseRelayConfig, relaySchema } from '../../../src/relay/config.ts'
import { relayDocument, updateDocument } from '../../support/configuration-table.ts'

const least = () => ({
  gateways: [{ address: 'gw.example:8602' }],
  certificateFile: 'relay.crt',
  keyFile: 'relay.key',
  caFile: 'ca.pem',
})
const parse = (document: unknown, environment: NodeJS.ProcessEnv = {}) =>
  parseRelayConfig(document, '/etc/hsmgate', environment)

function problemsOf(document: unknown): readonly string[] {
  try {
    parse(document)
  } catch (error) {
    if (error instanceof ProblemsError) return error.problems.map(({ at, cause }) => `${at} ${cause}`)
    throw error
  }
  return []
}

describe('the configuration of a relay', () => {
  it('is complete with gateways, certificate, key and authority', () => {
    expect(parse(least())).toMatchObject({
      socket: '/run/hsmgate/sign.sock',
      mode: '0660',
      gateways: [{ name: 'gw.example:8602', host: 'gw.example', port: 8602, serverName: 'gw.example' }],
      certificateFile: '/etc/hsmgate/relay.crt',
      connections: 2,
      maxBudgetMs: 1000,
      attemptPercent: 40,
    })
  })

  it('has its socket where systemd says', () => {
    expect(parse(least(), { RUNTIME_DIRECTORY: '/run/other' }).socket).toBe('/run/other/sign.sock')
    expect(parse({ ...least(), socket: 'here.sock' }).socket).toBe('/etc/hsmgate/here.sock')
  })

  it('takes addresses of IPv6 and names of certificates', () => {
    const gateways = [{ address: '[2001:db8::7]:8602', serverName: 'gw.example' }]
    expect(parse({ ...least(), gateways }).gateways).toEqual([
      { name: '[2001:db8::7]:8602', host: '2001:db8::7', port: 8602, serverName: 'gw.example' },
    ])
  })

  it('reports everything that is wrong at once, and quotes nothing', () => {
    const document = { gateways: [{ address: 'gw' }], certifcateFile: 'x', keyFile: 'k', caFile: 'c', maxPending: 0 }
    expect(problemsOf(document)).toEqual([
      'certificateFile is missing',
      'certifcateFile is an unknown key',
      'gateways[0].address has the wrong form',
      'maxPending must be >= 1',
    ])
  })

  it.each([
    ['no gateway', [], 'gateways must NOT have fewer than 1 items'],
    ['port 0', [{ address: 'gw:0' }], 'gateways[0] is no address of a gateway'],
    ['port 65536', [{ address: 'gw:65536' }], 'gateways[0] is no address of a gateway'],
    ['one gateway twice', [{ address: 'gw:1' }, { address: 'gw:1', serverName: 'x' }], 'gateways names gw:1 twice'],
  ])('refuses %s', (_, gateways, problem) => {
    expect(problemsOf({ ...least(), gateways })).toEqual([problem])
  })

  it('is asked for when it is not there', () => {
    expect(() => loadRelayConfig('/nonexistent/relay.json')).toThrow('/nonexistent/relay.json: does not exist')
  })
})

describe('docs/relay.md', () => {
  const text = readFileSync(relayDocument, 'utf8')

  it('lists every key as the schema has it (else run: node test/support/configuration-table.ts)', () => {
    expect(text).toBe(updateDocument(text, relaySchema))
  })

  it('shows a file that is valid', () => {
    const [, example] = /```json\n(\{\n {2}"gateways"[\s\S]*?)```/.exec(text) ?? []
    expect(parse(JSON.parse(String(example))).gateways).toHaveLength(2)
  })
})
