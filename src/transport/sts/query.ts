/** The Query protocol's parameters: a form body (AWS documentation, "Query protocol"; WHATWG URL, application/x-www-form-urlencoded). */
import { StsError } from './sts-error.ts'

const maxBodyBytes = 128 * 1024
const maxParameters = 500

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws StsError `QueryMalformed` for bodies that two readers could read in two ways. */
export function parseQuery(body: Buffer): ReadonlyMap<string, string> {
  if (body.length > maxBodyBytes) throw new StsError('QueryMalformed', 'The request is too large')
  let text: string
  try {
    text = utf8.decode(body)
  } catch {
    throw new StsError('QueryMalformed', 'The request is not valid UTF-8')
  }
  const query = new Map<string, string>()
  for (const [name, value] of new URLSearchParams(text)) {
    if (query.has(name)) throw new StsError('QueryMalformed', `Parameter ${name.slice(0, 128)} is given twice`)
    if (query.size === maxParameters) throw new StsError('QueryMalformed', 'The request has too many parameters')
    query.set(name, value)
  }
  return query
}

/** The members of a list parameter: `<name>.member.1.<field>` and on, without gaps. */
export function readList(
  query: ReadonlyMap<string, string>,
  name: string,
  fields: readonly string[],
): readonly Readonly<Record<string, string | undefined>>[] {
  const items: Record<string, string | undefined>[] = []
  for (let number = 1; ; number++) {
    const item = Object.fromEntries(fields.map((field) => [field, query.get(`${name}.member.${number}.${field}`)]))
    if (Object.values(item).every((value) => value === undefined)) return items
    items.push(item)
  }
}
