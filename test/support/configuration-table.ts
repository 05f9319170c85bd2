/**
 * The option tables of docs/configuration.md and docs/relay.md, made from the schemas. Run as a program it writes them into the documents:
 *   node test/support/configuration-table.ts
 */
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Schema } from '../../src/config/sections/section.ts'
import { fileSchema } from '../../src/config/sections/sections.ts'
import { relaySchema } from '../../src/relay/config.ts'

export const configurationDocument = path.resolve(import.meta.dirname, '../../docs/configuration.md')
export const relayDocument = path.resolve(import.meta.dirname, '../../docs/relay.md')

const begin = '<!-- table: written by test/support/configuration-table.ts -->\n'
const end = '<!-- end of table -->\n'

function renderTable(file: Schema): string {
  const rows = Object.entries(file.properties ?? {}).flatMap(([key, schema]) =>
    renderRows(key, schema, file.required?.includes(key) ?? false),
  )
  return ['| Key | Type | Default | Meaning |', '|---|---|---|---|', ...rows, ''].join('\n')
}

/** One row for the key itself, then its members. */
function renderRows(key: string, schema: Schema, isRequired: boolean): string[] {
  const rows = [`| \`${key}\` | ${typeOf(schema)} | ${defaultOf(schema, isRequired)} | ${schema.description} |`]
  for (const [name, member] of Object.entries(schema.properties ?? {})) {
    rows.push(...renderRows(`${key}.${name}`, member, schema.required?.includes(name) ?? false))
  }
  if (typeof schema.additionalProperties === 'object' && schema.additionalProperties.properties) {
    rows.push(...renderRows(`${key}.<name>`, schema.additionalProperties, false))
  }
  for (const [name, member] of Object.entries(schema.items?.properties ?? {})) {
    rows.push(...renderRows(`${key}[].${name}`, member, schema.items?.required?.includes(name) ?? false))
  }
  return rows
}

function typeOf(schema: Schema): string {
  const { type, enum: allowed, minimum, maximum } = schema
  if (allowed) return allowed.map((value) => `\`${value}\``).join(', ')
  if (schema.filePath) return 'path'
  if (type === 'array') return `list of ${schema.items?.filePath ? 'paths' : `${schema.items?.type}s`}`
  if (type === 'integer' && minimum !== undefined)
    return maximum === undefined ? `integer ≥ ${minimum}` : `${minimum} to ${maximum}`
  if (Array.isArray(type)) return 'object or `null`'
  return typeof schema.additionalProperties === 'object' ? 'map' : String(type)
}

function defaultOf({ default: value, derivedDefault }: Schema, isRequired: boolean): string {
  if (derivedDefault !== undefined) return derivedDefault
  if (isRequired) return '**required**'
  return value === undefined ? '' : `\`${JSON.stringify(value)}\``
}

/** The document with its table made anew. */
export function updateDocument(text: string, file: Schema = fileSchema): string {
  const [head, rest] = text.split(begin)
  const [, tail] = rest?.split(end) ?? []
  if (head === undefined || tail === undefined) throw new TypeError('the document has lost the marks of its table')
  return `${head}${begin}${renderTable(file)}${end}${tail}`
}

if (import.meta.main) {
  writeFileSync(configurationDocument, updateDocument(readFileSync(configurationDocument, 'utf8')))
  writeFileSync(relayDocument, updateDocument(readFileSync(relayDocument, 'utf8'), relaySchema))
}
