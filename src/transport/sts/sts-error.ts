/** Errors that only the STS door raises. They travel through the pipeline like any GatewayError and are told apart by `stsCode`. */
import { GatewayError } from '../../error.ts'

export type StsCode = 'ActionMissing' | 'ActionUnknown' | 'QueryMalformed'

export class StsError extends GatewayError<'ValidationFailed'> {
  readonly stsCode: StsCode

  constructor(stsCode: StsCode, text?: string) {
    super('ValidationFailed', text === undefined ? {} : { text }, { detail: stsCode })
    this.name = 'StsError'
    this.stsCode = stsCode
  }
}

/** In the words of the API framework, which validates before anything else. */
export function broken(member: string, value: string | undefined, constraint: string): string {
  return `Value ${value === undefined ? 'null' : `'${value.slice(0, 2048)}'`} at '${member}' failed to satisfy constraint: ${constraint}`
}

/** @throws GatewayError `ValidationFailed` if there are problems. */
export function throwProblems(problems: readonly string[]): void {
  const count = problems.length
  if (count === 0) return
  const text = `${count} validation error${count === 1 ? '' : 's'} detected: ${problems.join('; ')}`
  throw new GatewayError('ValidationFailed', { text })
}
