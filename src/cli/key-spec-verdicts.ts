/** What a token's proven capabilities mean for the key specs of the KMS API: which usages work, and why the others do not. Pure. */
import type { Capabilities, KeySpec, KeyUsage } from '../hsm/port.ts'
import { algorithms, isProven, specs } from '../keys/algorithms.ts'

export interface KeySpecVerdict {
  readonly spec: KeySpec
  /** Usages with which keys can be created. */
  readonly usages: readonly KeyUsage[]
  /** Algorithms of these usages that work. */
  readonly algorithms: readonly string[]
  /** What of the spec does not work. */
  readonly refused: readonly { readonly what: string; readonly why: string }[]
}

export function judgeKeySpecs(capabilities: Capabilities): readonly KeySpecVerdict[] {
  return (Object.keys(specs) as KeySpec[]).map((spec) => judge(spec, capabilities))
}

function judge(spec: KeySpec, capabilities: Capabilities): KeySpecVerdict {
  const offered = Object.entries(specs[spec].usages) as [KeyUsage, readonly string[]][]
  const usages: KeyUsage[] = []
  const working: string[] = []
  const refused: { what: string; why: string }[] = []
  for (const [usage, names] of offered) {
    const canCreate = capabilities.specs[spec]?.includes(usage) === true
    if (canCreate) usages.push(usage)
    const lacking = names.filter((name) => !isOffered(name, capabilities))
    if (canCreate) working.push(...names.filter((name) => !lacking.includes(name)))
    if (!canCreate) refused.push({ what: usage, why: whyOf(reasonsFor(spec, usage, names), capabilities) })
    else refused.push(...lacking.map((name) => ({ what: name, why: whyOf(namesOf(name), capabilities) })))
  }
  return { spec, usages, algorithms: working, refused }
}

function isOffered(name: string, capabilities: Capabilities): boolean {
  const algorithm = algorithms.get(name)
  return algorithm !== undefined && isProven(capabilities, algorithm)
}

/** Under these names the probe records why something is refused, most telling first. */
function reasonsFor(spec: KeySpec, usage: KeyUsage, names: readonly string[]): readonly string[] {
  const general = specs[spec].family === 'aes' ? ['SEAL', 'AES_GCM'] : []
  const pair = specs[spec].family === 'rsa' ? [`RSA_2048 for ${usage}`] : []
  return [spec, `${spec} for ${usage}`, ...pair, ...names.flatMap(namesOf), `MATERIAL_ID with ${spec}`, ...general]
}

/** The API's name and the HSM layer's. */
function namesOf(name: string): readonly string[] {
  const algorithm = algorithms.get(name)
  return algorithm !== undefined && 'hsm' in algorithm ? [name, algorithm.hsm] : [name]
}

function whyOf(names: readonly string[], { refused }: Capabilities): string {
  for (const name of names) {
    const found = refused.find(({ what }) => what === name)
    if (found !== undefined) return found.why
  }
  return 'the probe did not prove it'
}
