/**
 * What a section of the configuration is: a JSON schema with descriptions and defaults, and checks that a schema cannot express.
 * The descriptions are the text of docs/configuration.md, so they are written for operators.
 */
import type { Problem } from '../../problem.ts'

/** The subset of JSON Schema that sections use, with two words of our own. */
export interface Schema {
  readonly type: 'object' | 'array' | 'string' | 'integer' | 'boolean' | readonly ['object', 'null']
  readonly description: string
  readonly default?: unknown
  /** Where the default depends on other keys: what it is, in words. */
  readonly derivedDefault?: string
  /** A file or folder; relative paths are resolved against the folder of the configuration file. */
  readonly filePath?: true
  /** What a value looks like, in words, for the message when `pattern` does not match. */
  readonly form?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  /** `false` for objects with fixed keys, a schema for maps by name. */
  readonly additionalProperties?: false | Schema
  readonly propertyNames?: { readonly pattern: string }
  readonly items?: Schema
  readonly minItems?: number
  readonly uniqueItems?: true
  readonly enum?: readonly string[]
  readonly pattern?: string
  readonly minLength?: number
  readonly minimum?: number
  readonly maximum?: number
}

export interface Section<T> {
  readonly schema: Schema
  /** Rules within the section that the schema cannot express; `at` is the section's key. */
  readonly check?: (value: T, at: string) => readonly Problem[]
}

/** Names of tokens, groups and the like: they appear in metrics, logs and file names. */
export const namePattern = '^[a-z0-9][a-z0-9-]{0,62}$'
