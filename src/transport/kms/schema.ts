/**
 * Combinators that describe the input of an operation once: they give its TypeScript type, its wire decoding (AWS JSON 1.1), the
 * framework's validation with its exact grammar, and what of it an audit record may show.
 *
 * Wrong JSON types and undecodable base64 throw SerializationFailed at once; broken constraints are collected and reported
 * together. Member names come only from the schema and maps have no prototype, so `__proto__` is a name like any other.
 */
import { KmsError } from './kms-error.ts'

/** What one reading collects. */
export interface Reading {
  readonly problems: string[]
  readonly secrets: Uint8Array[]
}

/** `Present`: the member always has a value after reading. */
export interface Schema<T, Present extends boolean = boolean> {
  readonly present: Present
  required(): Schema<T, true>
  default(value: T): Schema<T, true>
  /** Left out of audit records. */
  unrecorded(): Schema<T, Present>
  readonly traits: Traits<T>
}

interface Traits<T> {
  readonly isRequired: boolean
  readonly fallback: T | undefined
  readonly isRecorded: boolean
  /** What an element of a list may break, as AWS lists it; empty for structures. */
  readonly constraints: readonly string[]
  read(raw: unknown, path: string, reading: Reading): T
  record(value: T): unknown
}

export type Infer<S> = S extends Schema<infer T, boolean> ? T : never

type Members = Readonly<Record<string, Schema<unknown>>>

type Structure<M> = {
  readonly [K in keyof M as M[K] extends Schema<unknown, true> ? K : never]: Infer<M[K]>
} & {
  readonly [K in keyof M as M[K] extends Schema<unknown, true> ? never : K]?: Infer<M[K]>
}

type Flat<T> = { readonly [K in keyof T]: T[K] }

function schema<T, Present extends boolean>(traits: Traits<T>, present: Present): Schema<T, Present> {
  return Object.freeze({
    present,
    traits,
    required: () => schema({ ...traits, isRequired: true }, true as const),
    default: (value: T) => schema({ ...traits, fallback: value }, true as const),
    unrecorded: () => schema({ ...traits, isRecorded: false }, present),
  })
}

function optional<T>(
  constraints: readonly string[],
  read: Traits<T>['read'],
  options: { readonly isRecorded?: boolean; readonly record?: (value: T) => unknown } = {},
): Schema<T, false> {
  const { isRecorded = true, record = (value: T) => value } = options
  return schema({ isRequired: false, fallback: undefined, isRecorded, constraints, read, record }, false as const)
}

const maxEchoed = 4096

function broken(value: string | null, path: string, constraint: string): string {
  const echoed = value === null || value.length <= maxEchoed ? value : `${value.slice(0, maxEchoed)}...`
  return `Value ${echoed === null ? '' : `'${echoed}' `}at '${path}' failed to satisfy constraint: ${constraint}`
}

const notNull = 'Member must not be null'
const atLeast = (min: number) => `Member must have length greater than or equal to ${min}`
const atMost = (max: number) => `Member must have length less than or equal to ${max}`

interface Length {
  readonly min?: number
  readonly max?: number
}

function lengthConstraints({ min = 0, max = Number.POSITIVE_INFINITY }: Length): string[] {
  return [...(max === Number.POSITIVE_INFINITY ? [] : [atMost(max)]), ...(min > 0 ? [atLeast(min)] : [])]
}

export function serialization(text: string): KmsError {
  return new KmsError('SerializationFailed', text)
}

export function string(
  options: Length & { readonly pattern?: RegExp; readonly sensitive?: boolean } = {},
): Schema<string, false> {
  const { min = 0, max = Number.POSITIVE_INFINITY, pattern, sensitive = false } = options
  const patternText = pattern === undefined ? '' : `Member must satisfy regular expression pattern: ${pattern.source}`
  return optional(
    [...lengthConstraints(options), ...(pattern === undefined ? [] : [patternText])],
    (raw, path, { problems }) => {
      const value = readText(raw)
      const shown = sensitive ? null : value
      if (value.length < min) problems.push(broken(shown, path, atLeast(min)))
      if (value.length > max) problems.push(broken(shown, path, atMost(max)))
      // A value beyond its length is not matched: patterns run on bounded text only.
      else if (pattern !== undefined && !pattern.test(value)) problems.push(broken(shown, path, patternText))
      return value
    },
    { isRecorded: !sensitive },
  )
}

function readText(raw: unknown): string {
  if (typeof raw !== 'string') throw serialization(`${nameOf(raw)} can not be converted to a String`)
  // A lone surrogate has no UTF-8 form: two such strings would become the same bytes.
  if (!raw.isWellFormed()) throw serialization('String is not well-formed Unicode')
  return raw
}

function nameOf(raw: unknown): string {
  if (typeof raw === 'number') return 'NUMBER_VALUE'
  if (typeof raw === 'boolean') return raw ? 'TRUE_VALUE' : 'FALSE_VALUE'
  if (typeof raw === 'string') return 'STRING_VALUE'
  return raw === null ? 'NULL_VALUE' : 'Start of structure or map or list'
}

export function enumeration<const V extends readonly string[]>(values: V): Schema<V[number], false> {
  const known = new Set<string>(values)
  const constraint = `Member must satisfy enum value set: [${values.join(', ')}]`
  return optional([constraint], (raw, path, { problems }) => {
    const value = readText(raw)
    if (!known.has(value)) problems.push(broken(value, path, constraint))
    return value as V[number]
  })
}

/** Never recorded. `sensitive`: not echoed, and wiped when the call ends. */
export function blob(options: Length & { readonly sensitive?: boolean }): Schema<Buffer, false> {
  const { min = 0, max = Number.POSITIVE_INFINITY, sensitive = false } = options
  return optional(
    lengthConstraints(options),
    (raw, path, { problems, secrets }) => {
      if (typeof raw !== 'string') throw serialization(`${nameOf(raw)} can not be converted to a Blob`)
      const value = decodeBase64(raw)
      if (sensitive) secrets.push(value)
      if (value.length < min || value.length > max) {
        // AWS prints the Java object.
        const shown = sensitive ? null : `java.nio.HeapByteBuffer[pos=0 lim=${value.length} cap=${value.length}]`
        problems.push(broken(shown, path, value.length < min ? atLeast(min) : atMost(max)))
      }
      return value
    },
    { isRecorded: false },
  )
}

/** Standard alphabet, padded (RFC 4648, section 4). Buffer skips what it doesn't know, so a length that differs shows it. */
function decodeBase64(text: string): Buffer {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0
  const value = Buffer.from(text, 'base64')
  if (text.length % 4 !== 0 || value.length !== (text.length / 4) * 3 - padding || /[-_]/.test(text)) {
    value.fill(0)
    throw serialization('Blob is not valid base64')
  }
  return value
}

export function integer(options: { readonly min?: number; readonly max?: number } = {}): Schema<number, false> {
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = options
  const tooSmall = `Member must have value greater than or equal to ${min}`
  const tooLarge = `Member must have value less than or equal to ${max}`
  return optional([tooLarge, tooSmall], (raw, path, { problems }) => {
    if (!Number.isInteger(raw)) throw serialization(`${nameOf(raw)} can not be converted to an Integer`)
    const value = raw as number
    if (value < min) problems.push(broken(String(value), path, tooSmall))
    if (value > max) problems.push(broken(String(value), path, tooLarge))
    return value
  })
}

export function boolean(): Schema<boolean, false> {
  return optional([], (raw) => {
    if (typeof raw !== 'boolean') throw serialization(`${nameOf(raw)} can not be converted to a Boolean`)
    return raw
  })
}

/** Epoch seconds on the wire, fraction allowed; epoch milliseconds here. */
export function timestamp(): Schema<number, false> {
  return optional([], (raw) => {
    const value = typeof raw === 'number' ? Math.round(raw * 1000) : Number.NaN
    // The range of a JavaScript Date; it also keeps milliseconds exact.
    if (!(Math.abs(value) <= 8.64e15)) throw serialization(`${nameOf(raw)} can not be converted to a Timestamp`)
    return value
  })
}

/** String to string; free of prototype, in the order of the request. */
export function stringMap(): Schema<Readonly<Record<string, string>>, false> {
  return optional([], (raw) => {
    const map: Record<string, string> = Object.create(null)
    for (const [key, value] of Object.entries(requireObject(raw))) map[readText(key)] = readText(value)
    return map
  })
}

export function list<T>(element: Schema<T>, options: Length = {}): Schema<readonly T[], false> {
  const { min = 0, max = Number.POSITIVE_INFINITY } = options
  const { traits } = element
  const isScalar = traits.constraints.length > 0
  const elementConstraint = `Member must satisfy constraint: [${traits.constraints.join(', ')}]`
  return optional(
    [],
    (raw, path, reading) => {
      if (!Array.isArray(raw)) throw serialization('Unexpected value where a list was expected')
      const { problems } = reading
      const inner: Reading = isScalar ? { problems: [], secrets: reading.secrets } : reading
      // Limits before work: an oversized list is not read.
      if (raw.length > max) {
        problems.push(broken(printList(raw), path, atMost(max)))
        return []
      }
      if (raw.length < min) problems.push(broken(printList(raw), path, atLeast(min)))
      const values = raw.map((item, index) => traits.read(item, `${path}.${index + 1}.member`, inner))
      if (isScalar && inner.problems.length > 0) problems.push(broken(printList(raw), path, elementConstraint))
      return values
    },
    { record: (values) => values.map((value) => traits.record(value)) },
  )
}

function printList(raw: readonly unknown[]): string {
  const shown: string[] = []
  let length = 0
  for (const item of raw) {
    const text = typeof item === 'string' ? item : typeof item
    length += text.length
    if (length > maxEchoed) break
    shown.push(text)
  }
  return `[${shown.join(', ')}]`
}

function requireObject(raw: unknown): Readonly<Record<string, unknown>> {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) {
    throw serialization('Unexpected value where a structure or map was expected')
  }
  return raw as Readonly<Record<string, unknown>>
}

function camel(name: string): string {
  return name.charAt(0).toLowerCase() + name.slice(1)
}

export function structure<const M extends Members>(members: M): Schema<Flat<Structure<M>>, false> {
  const rows = Object.entries(members).map(([name, member]) => ({
    name,
    camelName: camel(name),
    traits: (member as Schema<unknown>).traits,
  }))
  type Value = Flat<Structure<M>>
  return optional<Value>(
    [],
    (raw, path, reading) => {
      const given = requireObject(raw)
      const value: Record<string, unknown> = {}
      for (const { name, camelName, traits } of rows) {
        const rawMember = given[name]
        if (rawMember !== undefined && rawMember !== null) {
          value[name] = traits.read(rawMember, path === '' ? camelName : `${path}.${camelName}`, reading)
        } else {
          value[name] = traits.fallback
          if (traits.isRequired) {
            const memberPath = path === '' ? camelName : `${path}.${camelName}`
            reading.problems.push(`Value null at '${memberPath}' failed to satisfy constraint: ${notNull}`)
          }
        }
      }
      return value as Value
    },
    {
      record(value) {
        const recorded: Record<string, unknown> = {}
        for (const { name, camelName, traits } of rows) {
          const member = (value as Record<string, unknown>)[name]
          if (member !== undefined && traits.isRecorded) recorded[camelName] = traits.record(member)
        }
        return recorded
      },
    },
  )
}
