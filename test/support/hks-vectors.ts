/** The shared HKS/1 vectors, typed. The C provider's test program reads the same file. */
import { readFileSync } from 'node:fs'

export interface FrameVector {
  readonly name: string
  readonly direction: 'toGateway' | 'toClient'
  readonly hex: string
  /** `frame`: parses to `fields`; `refuse`: the frame is whole but its body does not parse; `close`: ends the connection; `incomplete`: more must come. */
  readonly outcome: 'frame' | 'refuse' | 'close' | 'incomplete'
  readonly type?: string
  readonly requestId?: number
  readonly aux?: number
  readonly fields?: Readonly<Record<string, unknown>>
}

export const frameVectors: readonly FrameVector[] = JSON.parse(
  readFileSync(new URL('../vectors/hks-frames.json', import.meta.url), 'utf8'),
)
