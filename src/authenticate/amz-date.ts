/** The time of a signature: ISO 8601 basic form of X-Amz-Date, or an HTTP Date header. Pure. */

export interface AmzDate {
  /** `YYYYMMDDTHHMMSSZ`, as it enters the string to sign. */
  readonly text: string
  /** Epoch milliseconds. */
  readonly atMs: number
}

const basicForm = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/
/** IMF-fixdate of RFC 9110, section 5.6.7. */
const httpForm = /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/

let last: AmzDate = { text: '', atMs: 0 }

/** Undefined when the text is neither form or names no real moment. Requests of one second share their date: the last is kept. */
export function parseAmzDate(text: string): AmzDate | undefined {
  if (text === last.text && text !== '') return last
  const date = parse(text)
  if (date !== undefined) last = date
  return date
}

function parse(text: string): AmzDate | undefined {
  const match = basicForm.exec(text)
  if (match !== null) {
    const [, year, month, day, hour, minute, second] = match
    const atMs = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second))
    return formatAmzDate(atMs) === text ? { text, atMs } : undefined
  }
  if (!httpForm.test(text)) return undefined
  const atMs = Date.parse(text)
  return Number.isNaN(atMs) ? undefined : { text: formatAmzDate(atMs), atMs }
}

export function formatAmzDate(atMs: number): string {
  // 2015-08-30T12:36:00.000Z -> 20150830T123600Z
  const iso = new Date(atMs).toISOString()
  return `${iso.slice(0, 4)}${iso.slice(5, 7)}${iso.slice(8, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`
}
