/**
 * A strict reader of DER (X.690, section 10) for bytes that somebody wants signed: definite minimal lengths, low tags, nothing left over.
 * It allocates one small record per element and follows nothing deeper than it is asked to. Malformed input is a DerError.
 */

export class DerError extends Error {
  override readonly name = 'DerError'
}

export const derTags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** `[n]`, constructed. */
export function contextTag(number: number): number {
  return 0xa0 | number
}

/** One element: its content lies in the same buffer from `from` to `to`. */
export interface Element {
  readonly tag: number
  readonly from: number
  readonly to: number
}

/** @throws DerError when no whole element begins at `at` or it ends beyond `end`. */
export function readElement(bytes: Uint8Array, at: number, end: number): Element {
  if (end - at < 2) throw new DerError('cut off')
  const tag = bytes[at]!
  if ((tag & 0x1f) === 0x1f) throw new DerError('high tag')
  let length = bytes[at + 1]!
  let from = at + 2
  if (length >= 0x80) {
    const count = length & 0x7f
    if (count === 0 || count > 3) throw new DerError('length')
    if (end - from < count) throw new DerError('cut off')
    length = 0
    for (let i = 0; i < count; i++) length = length * 256 + bytes[from++]!
    if (length < 0x80 || (count > 1 && length < 2 ** (8 * (count - 1)))) throw new DerError('length not minimal')
  }
  if (length > end - from) throw new DerError('cut off')
  return { tag, from, to: from + length }
}

/** Elements one after the other, each of which must be what it is asked to be. */
export class DerCursor {
  readonly bytes: Uint8Array
  #at: number
  readonly #end: number

  constructor(bytes: Uint8Array, from = 0, to = bytes.length) {
    this.bytes = bytes
    this.#at = from
    this.#end = to
  }

  get isAtEnd(): boolean {
    return this.#at === this.#end
  }

  /** Whether the next element has this tag. */
  sees(tag: number): boolean {
    return this.#at < this.#end && this.bytes[this.#at] === tag
  }

  /** @throws DerError unless the next element has this tag. */
  take(tag: number): Element {
    const element = readElement(this.bytes, this.#at, this.#end)
    if (element.tag !== tag) throw new DerError(`tag ${element.tag} instead of ${tag}`)
    this.#at = element.to
    return element
  }

  /** The content of the next element. @throws DerError unless it has this tag. */
  enter(tag: number): DerCursor {
    const { from, to } = this.take(tag)
    return new DerCursor(this.bytes, from, to)
  }

  /** Whatever comes next, well-formed at its own level. @throws DerError */
  skip(): void {
    this.#at = readElement(this.bytes, this.#at, this.#end).to
  }

  /** @throws DerError when something is left. */
  end(): void {
    if (!this.isAtEnd) throw new DerError('bytes left over')
  }
}
