/**
 * The order of test files: those known to be long first, the longest at the head, so that no process is left alone with one at the end; then as
 * vitest has it, which knows durations only from earlier runs of the same checkout. A file that is renamed loses its place, nothing else.
 */
import path from 'node:path'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

const longest = [
  'integration/custom-key-stores-token',
  'native/core',
  'integration/hsm-module-faults',
  'integration/dev',
  'integration/adopt',
  'integration/doctor',
  'integration/tls-lifecycle',
  'integration/relay-gateways',
  'integration/tls-clients',
  'integration/tls-sites',
  'integration/tls-live-changes',
  'conformance/kms/import',
  'integration/hsm-softhsm',
  'integration/key-steps-crash',
  'integration/custom-key-stores-xks',
  'integration/hsm-faults',
  'integration/destruction-pause',
  'unit/relay/failover',
  'unit/catalog/keys',
  'native/shim',
  'integration/bad-start',
  'integration/attacks',
  'conformance/xks/module',
  'integration/material-steps-crash',
  'conformance/kms/every-kind',
  'conformance/kms/bad-input',
  'native/provider-openssl',
  'integration/aws-clients',
  'integration/offload-sockets',
  'integration/tls-outages',
  'integration/hand-over',
  'integration/forgotten-objects',
  'integration/tls-servers',
  'integration/gateway-crash',
  'integration/gateway-disk',
  'integration/hsm-worker-life',
  'integration/relay-hand-over',
  'integration/postgres-gateways',
  'integration/offload-bad-input',
  'unit/catalog/postgres',
  'soak/memory',
  'soak/sanitizers',
]
const tests = path.resolve(import.meta.dirname, '..')
const ranks = new Map(longest.map((name, rank) => [path.join(tests, `${name}.test.ts`), rank]))

export class LongFilesFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rankOf = ({ moduleId }: TestSpecification) => ranks.get(moduleId) ?? longest.length
    return (await super.sort(files)).toSorted((a, b) => rankOf(a) - rankOf(b))
  }
}
