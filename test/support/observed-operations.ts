/**
 * What the conformance tests of the KMS door really did: which operations succeeded on which kinds of key, read from the audit journal of
 * each test gateway. Test files leave one small file per gateway in the folder of their run; compatibility-reporter.ts makes that folder,
 * collects them and removes it. Without that reporter nothing is written.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'

/** Environment variable by which the workers of a run know its folder. */
export const observationFolder = 'HSMGATE_OBSERVATION_FOLDER'

/** By operation: kinds of the keys it succeeded on, and values of the request members that choose an algorithm. */
export interface Observation {
  /** The test file. */
  readonly file: string
  readonly operations: Readonly<
    Record<string, { readonly kinds: readonly string[]; readonly variants: readonly string[] }>
  >
}

interface RecordedKey {
  readonly keyId: string
  readonly keySpec: string
  readonly keyUsage: string
  readonly origin: string
  readonly multiRegion: boolean
}

interface RecordedEvent {
  readonly eventSource: string
  readonly eventName: string
  readonly errorCode?: string
  readonly requestParameters: Readonly<Record<string, unknown>> | null
  readonly responseElements: { readonly keyMetadata?: RecordedKey; readonly replicaKeyMetadata?: RecordedKey } | null
  readonly resources?: readonly { readonly ARN?: string }[]
}

/** Request members whose values tell what an operation was used for. */
const choices = [
  'encryptionAlgorithm',
  'destinationEncryptionAlgorithm',
  'signingAlgorithm',
  'macAlgorithm',
  'keyAgreementAlgorithm',
  'encapsulationAlgorithm',
  'keyPairSpec',
  'wrappingAlgorithm',
  'customKeyStoreType',
]

/** In a worker of vitest, before its test file runs. */
export function observeTestFile(file: string | undefined): void {
  if (file?.includes('/test/conformance/kms/')) process.env.HSMGATE_OBSERVED_FILE = file
}

/** After the gateway of that journal has closed. Nothing outside the observed test files. */
export async function noteOperations(auditDirectory: string): Promise<void> {
  const { [observationFolder]: folder, HSMGATE_OBSERVED_FILE: file } = process.env
  if (folder === undefined || file === undefined) return
  const observation: Observation = { file, operations: summarize(await readJournal(auditDirectory)) }
  await mkdir(folder, { recursive: true })
  await writeFile(path.join(folder, `${randomUUID()}.json`), JSON.stringify(observation))
}

export async function collectObservations(folder: string): Promise<readonly Observation[]> {
  const names = await readdir(folder)
  return Promise.all(names.map(async (name) => JSON.parse(await readFile(path.join(folder, name), 'utf8'))))
}

async function readJournal(directory: string): Promise<readonly RecordedEvent[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.jsonl')).sort()
  const texts = await Promise.all(names.map((name) => readFile(path.join(directory, name), 'utf8')))
  return texts
    .join('')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as { event: RecordedEvent }).event)
}

function summarize(events: readonly RecordedEvent[]): Observation['operations'] {
  const kindOfKey = new Map<string, string>()
  const found = new Map<string, { readonly kinds: Set<string>; readonly variants: Set<string> }>()
  for (const event of events) {
    const { eventSource, eventName, errorCode, requestParameters, responseElements, resources = [] } = event
    if (eventSource !== 'kms.amazonaws.com' || errorCode !== undefined) continue
    for (const key of [responseElements?.keyMetadata, responseElements?.replicaKeyMetadata]) {
      if (key !== undefined) kindOfKey.set(key.keyId, `${key.keySpec} ${key.keyUsage}`)
    }
    const { kinds, variants } = found.get(eventName) ?? { kinds: new Set(), variants: new Set() }
    found.set(eventName, { kinds, variants })
    for (const { ARN: arn = '' } of resources) {
      const kind = kindOfKey.get(arn.split(':key/')[1] ?? '')
      if (kind !== undefined) kinds.add(kind)
    }
    for (const choice of choices) {
      const value = requestParameters?.[choice]
      if (typeof value === 'string') variants.add(value)
    }
  }
  return Object.fromEntries(
    [...found].map(([name, { kinds, variants }]) => [name, { kinds: [...kinds], variants: [...variants] }]),
  )
}
