/**
 * The probe's proofs of HMAC and AES: MACs, material ids, sealing and wrapping.
 */
import { createHmac, randomBytes } from 'node:crypto'
import type { KeySpec, KeyUsage, MacAlgorithm } from '../port.ts'
import { jobOp } from './addon.ts'
import { CKA, CKK } from './cryptoki.ts'
import { constructionOfFacts } from './facts.ts'
import { macEntries } from './mechanisms.ts'
import { encodeTemplate } from './pack.ts'
import { isRefused, type ProbeKey, type ProbeRun, sessionIntent } from './probe-run.ts'
import { sessionSecretTemplate } from './templates.ts'

const noBytes = Buffer.alloc(0)

export async function probeHmac(run: ProbeRun): Promise<void> {
  for (const [name, { specs, hash, macBytes }] of Object.entries(macEntries)) {
    const spec = specs[0] as KeySpec
    const key = await run.generate(spec, 'GENERATE_VERIFY_MAC')
    if (key === undefined) continue
    const isGood = await run.prove(name, async () => {
      const { signing } = run.parts
      const ask = (message: Buffer) => signing.mac(run.call, key.ref, name as MacAlgorithm, message)
      const [one, same, other, empty] = await Promise.all(
        ['one', 'one', 'two', ''].map((message) => ask(Buffer.from(message))),
      )
      if (one?.length !== macBytes || !same?.equals(one) || other?.equals(one) || empty?.length !== macBytes)
        return false
      return macIsKnown(run, name as MacAlgorithm, hash)
    })
    const hasId = isGood && (await materialId(run, key))
    if (isGood && hasId) run.specs[spec] = ['GENERATE_VERIFY_MAC']
  }
}

/** The right MAC for a key of known value, where the module lets one in. */
async function macIsKnown(run: ProbeRun, algorithm: MacAlgorithm, hash: string): Promise<boolean> {
  const { jobs } = run.parts
  const value = randomBytes(64)
  const template = sessionSecretTemplate(CKK.genericSecret, 64, [CKA.sign]).filter(([type]) => type !== CKA.valueLen)
  const aux = encodeTemplate([...template, [CKA.value, value]])
  const created = await jobs.attempt(run.call, jobOp.createObject, { aux })
  if (created.rv !== 0) return true
  try {
    const message = randomBytes(33)
    const { mechanism, macBytes } = macEntries[algorithm] as NonNullable<(typeof macEntries)[MacAlgorithm]>
    const job = { mechanism, key: created.handle, input: message, outMax: macBytes }
    const { output } = await jobs.need(run.call, jobOp.sign, job)
    return output?.equals(createHmac(hash, value).update(message).digest()) === true
  } finally {
    jobs.discard(created.handle)
  }
}

export async function probeSymmetric(run: ProbeRun): Promise<void> {
  const { facts, cipher } = run.parts
  const usages: KeyUsage[] = []
  const key =
    constructionOfFacts(facts) === 'none' ? undefined : await run.generate('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
  if (key !== undefined) {
    const seals = await run.prove('SEAL', async () => {
      const prefix = Buffer.from('prefix')
      const context = Buffer.from('context')
      const data = randomBytes(100)
      const seal = (bytes: Buffer) =>
        cipher.encrypt(run.call, key.ref, 'SEAL', { prefix, context, data: bytes }, jobOp.encryptVerify)
      const open = (sealed: Buffer, otherContext = context) =>
        cipher.decrypt(run.call, key.ref, 'SEAL', { prefix, context: otherContext, data: sealed })
      const [one, two, empty] = await Promise.all([seal(Buffer.from(data)), seal(Buffer.from(data)), seal(noBytes)])
      if (one.equals(two) || !(await open(one)).equals(data) || (await open(empty)).length !== 0) return false
      const tampered = Buffer.from(one)
      tampered[tampered.length - 1] = (tampered.at(-1) as number) ^ 1
      return (await isRefused(() => open(tampered))) && isRefused(() => open(one, prefix))
    })
    if (facts.gcmIv !== 'none') run.algorithms.add('AES_GCM')
    if (seals && (await materialId(run, key))) usages.push('ENCRYPT_DECRYPT')
  }
  if (facts.kwpMechanism !== undefined && (await wrapping(run))) usages.push('WRAP_UNWRAP')
  if (usages.length > 0) run.specs.SYMMETRIC_DEFAULT = usages
}

async function wrapping(run: ProbeRun): Promise<boolean> {
  const wraps = await run.generate('SYMMETRIC_DEFAULT', 'WRAP_UNWRAP', 'system')
  const target = await run.generate('HMAC_256', 'GENERATE_VERIFY_MAC', 'kms', true)
  if (wraps === undefined || target === undefined) return false
  const { creating, signing } = run.parts
  return run.prove('AES_KWP', async () => {
    const wrapped = await creating.wrap(run.call, wraps.ref, target.ref, 'AES_KWP')
    const intent = sessionIntent('HMAC_256', 'GENERATE_VERIFY_MAC', 'kms')
    const back = run.track(intent, await creating.unwrapSession(run.call, wraps.ref, 'AES_KWP', wrapped, intent))
    const message = randomBytes(20)
    const [one, two] = await Promise.all(
      [target, back].map(({ ref }) => signing.mac(run.call, ref, 'HMAC_SHA_256', message)),
    )
    return one?.equals(two as Buffer) === true
  })
}

async function materialId(run: ProbeRun, key: ProbeKey): Promise<boolean> {
  const isGood = await run.prove(
    `MATERIAL_ID with ${key.ref.spec}`,
    async () => {
      const ask = (message: string) => run.parts.signing.mac(run.call, key.ref, 'MATERIAL_ID', Buffer.from(message))
      const [one, same, other] = await Promise.all([ask('one'), ask('one'), ask('other')])
      return one.length === 32 && one.equals(same) && !one.equals(other)
    },
    false,
  )
  if (isGood) run.algorithms.add('MATERIAL_ID')
  return isGood
}
