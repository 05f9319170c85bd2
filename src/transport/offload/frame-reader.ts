/**
 * Cuts a byte stream into HKS/1 frames. Holds nothing between frames, so an idle connection costs no buffer; a frame that arrives in
 * pieces gets a buffer that grows with what has come, whatever length its head claims. Once the stream is broken the reader stays broken.
 */
import { decodeHead, FrameError, type FrameType, type Head, headBytes } from './frames.ts'

/** The body lies in `buffer` from `at` to `end`; it stays valid after the call. */
export type OnFrame = (head: Head, buffer: Buffer, at: number, end: number) => void

export interface FrameReader {
  /** Calls `onFrame` for every frame that is complete, in order, synchronously. @throws FrameError, now and at every later chunk. */
  push(chunk: Buffer): void
  /** Whether a frame has begun and not ended. */
  isWithinFrame(): boolean
}

const firstPieceBytes = 1024

/** HELLO holds tokens, so what is left behind is wiped. */
function grown(buffer: Buffer, filled: number, needed: number, most: number): Buffer {
  if (needed <= buffer.length) return buffer
  const larger = Buffer.allocUnsafeSlow(Math.min(most, Math.max(needed, buffer.length * 2)))
  larger.set(buffer.subarray(0, filled))
  buffer.fill(0)
  return larger
}

export function createFrameReader(
  allowed: ReadonlyMap<number, FrameType>,
  maxRequestBytes: number,
  onFrame: OnFrame,
): FrameReader {
  let partialHead: Buffer | undefined
  let head: Head | undefined
  let body: Buffer | undefined
  let filled = 0
  let broken = false

  function parse(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (head === undefined) {
        if (partialHead === undefined && chunk.length - at >= headBytes) {
          const whole = decodeHead(chunk, at, allowed, maxRequestBytes)
          const end = at + headBytes + whole.bodyBytes
          if (end <= chunk.length) {
            onFrame(whole, chunk, at + headBytes, end)
            at = end
            continue
          }
          head = whole
          at += headBytes
        } else {
          if (partialHead === undefined) {
            partialHead = Buffer.alloc(headBytes)
            filled = 0
          }
          const part = Math.min(headBytes - filled, chunk.length - at)
          partialHead.set(chunk.subarray(at, at + part), filled)
          at += part
          filled += part
          if (filled < headBytes) return
          head = decodeHead(partialHead, 0, allowed, maxRequestBytes)
          partialHead = undefined
        }
        body = Buffer.allocUnsafeSlow(Math.min(head.bodyBytes, Math.max(firstPieceBytes, chunk.length - at)))
        filled = 0
      }
      const part = Math.min(head.bodyBytes - filled, chunk.length - at)
      const whole = grown(body as Buffer, filled, filled + part, head.bodyBytes)
      body = whole
      whole.set(chunk.subarray(at, at + part), filled)
      at += part
      filled += part
      if (filled < head.bodyBytes) return
      const complete = head
      head = undefined
      body = undefined
      onFrame(complete, whole, 0, complete.bodyBytes)
    }
  }

  return {
    push(chunk) {
      if (broken) throw new FrameError('broken before')
      try {
        parse(chunk)
      } catch (error) {
        broken = true
        partialHead = undefined
        head = undefined
        body = undefined
        throw error
      }
    },
    isWithinFrame: () => partialHead !== undefined || head !== undefined,
  }
}
