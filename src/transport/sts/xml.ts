/** Writes the XML of Query answers: elements and text, nothing else. */

export type XmlContent = { readonly [name: string]: string | XmlContent | undefined }

const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

/** One element with its children; absent ones are left out. */
export function element(name: string, content: string | XmlContent, namespace?: string): string {
  const start = namespace === undefined ? name : `${name} xmlns="${namespace}"`
  const inner =
    typeof content === 'string'
      ? escapeText(content)
      : Object.entries(content)
          .map(([child, value]) => (value === undefined ? '' : element(child, value)))
          .join('')
  return `<${start}>${inner}</${name}>`
}

/** Characters that XML 1.0 cannot carry at all (section 2.2) become question marks. */
function escapeText(text: string): string {
  return text
    .replace(/[&<>"]/g, (character) => escapes[character] as string)
    .replace(/[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/gu, '?')
}
