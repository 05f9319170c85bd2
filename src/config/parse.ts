/** Validates a parsed configuration document against its schema, fills in defaults, and words the problems for operators. */
import path from 'node:path'
import { Ajv, type ErrorObject, type FuncKeywordDefinition } from 'ajv'
import type { Problem } from '../problem.ts'
import type { Schema } from './sections/section.ts'
import { fileSchema } from './sections/sections.ts'

interface Context {
  readonly directory: string
}

type Place = { readonly parentData: Record<string, unknown>; readonly parentDataProperty: string }

function makeAbsolute(this: Context, value: string, at: Place): boolean {
  at.parentData[at.parentDataProperty] = path.resolve(this.directory, value)
  return true
}

const filePath: FuncKeywordDefinition = {
  keyword: 'filePath',
  type: 'string',
  modifying: true,
  schema: false,
  validate: makeAbsolute as unknown as FuncKeywordDefinition['validate'] & object,
}

const ajv = new Ajv({
  allErrors: true,
  useDefaults: true,
  strict: true,
  allowUnionTypes: true,
  verbose: true,
  passContext: true,
})
ajv.addKeyword(filePath)
ajv.addVocabulary(['derivedDefault', 'form'])
/** `document` is changed in place: defaults are filled in and paths made absolute, from `directory`. */
export type Parse = (
  document: unknown,
  directory: string,
) => { readonly values: unknown; readonly problems: readonly Problem[] }

export function createParse(schema: Schema): Parse {
  const validate = ajv.compile(schema)
  return (document, directory) => {
    const context: Context = { directory }
    if (validate.call(context as never, document)) return { values: document, problems: [] }
    return { values: document, problems: (validate.errors ?? []).flatMap(describe) }
  }
}

/** The gateway's own file. */
export const parseSections = createParse(fileSchema)

/** Values are never quoted: a secret may have been put where it does not belong. */
function describe(error: ErrorObject): Problem | [] {
  const at = dotted(error.instancePath)
  const schema = error.parentSchema as { form?: string; description?: string; properties?: Record<string, unknown> }
  const { params } = error
  switch (error.keyword) {
    case 'additionalProperties':
      return unknownKey(at, String(params.additionalProperty), Object.keys(schema.properties ?? {}))
    case 'required': {
      const key = String(params.missingProperty)
      const member = schema.properties?.[key] as { description?: string } | undefined
      return { at: join(at, key), cause: 'is missing', remedy: `add it: ${member?.description ?? key}` }
    }
    case 'type':
      return { at, cause: `is ${kindOf(error.data)}`, remedy: `make it ${String(params.type).replace(',', ' or ')}` }
    case 'enum': {
      const allowed = (params.allowedValues as readonly string[]).join(', ')
      return { at, cause: 'has a value that is not known', remedy: `use one of: ${allowed}` }
    }
    case 'pattern': {
      if (error.propertyName !== undefined) return []
      return { at, cause: 'has the wrong form', remedy: `use ${schema.form ?? `the form ${params.pattern}`}` }
    }
    case 'propertyNames': {
      const key = String(params.propertyName)
      const remedy = 'use at most 63 lower-case letters, digits and hyphens'
      return { at: join(at, key), cause: 'is not a valid name', remedy }
    }
    default:
      return { at, cause: error.message ?? error.keyword, remedy: schema.description ?? 'correct it' }
  }
}

function unknownKey(at: string, key: string, known: readonly string[]): Problem {
  const near = known.find((name) => distance(name.toLowerCase(), key.toLowerCase()) <= 2)
  const list = known.length > 0 ? `known here: ${known.join(', ')}` : 'nothing is known here'
  const remedy = near === undefined ? `remove it; ${list}` : `did you mean '${near}'?`
  return { at: join(at, key), cause: 'is an unknown key', remedy }
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

const join = (at: string, key: string) => (at === wholeFile ? key : `${at}.${key}`)
const wholeFile = 'configuration'

/** JSON pointer (RFC 6901) → the way people write it: `/regions/0` → `regions[0]`. */
function dotted(pointer: string): string {
  if (pointer === '') return wholeFile
  return pointer
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
    .map((part, index) => (/^\d+$/.test(part) && index > 0 ? `[${part}]` : `${index > 0 ? '.' : ''}${part}`))
    .join('')
}

/** Levenshtein distance, for "did you mean". */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1) {
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]!
}
