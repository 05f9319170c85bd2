/**
 * JSON without its one trap: a repeated member name. `JSON.parse` keeps the last of two, so `{"Condition": A, "Condition": B}` would
 * silently drop a restriction; here it is an error (RFC 8259 section 4 leaves the behaviour open).
 */

/** @throws SyntaxError when `text` is not JSON or an object names a member twice. */
export function parseStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text)
  refuseRepeatedNames(text)
  return value
}

/** Walks text that is known to be valid JSON: only strings and brackets need to be told apart. */
function refuseRepeatedNames(text: string): void {
  const open: (Set<string> | undefined)[] = []
  let expectsName = false
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '{':
        open.push(new Set())
        expectsName = true
        break
      case '[':
        open.push(undefined)
        expectsName = false
        break
      case '}':
      case ']':
        open.pop()
        expectsName = false
        break
      case ',':
        expectsName = open.at(-1) !== undefined
        break
      case '"': {
        const end = endOfString(text, at)
        if (expectsName) {
          const name = JSON.parse(text.slice(at, end + 1)) as string
          const names = open.at(-1)
          if (names?.has(name)) throw new SyntaxError('repeated member name')
          names?.add(name)
          expectsName = false
        }
        at = end
        break
      }
    }
  }
}

/** Index of the quotation mark that closes the string opened at `start`. */
function endOfString(text: string, start: number): number {
  let at = start + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at
}
