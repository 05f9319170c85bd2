/** The alias that a new key is to have, as operators name it: the prefix may be left out, aliases are no API members to them. */
import { GatewayError } from '../../error.ts'
import type { Input } from './operator-command.ts'

/** AWS KMS API Reference: CreateAlias. */
const aliasPattern = /^alias\/(?!aws\/)[a-zA-Z0-9/_-]{1,250}$/

/** With the prefix. @throws GatewayError `ValidationFailed` */
export function parseAlias(value: Input[string]): string | undefined {
  if (value === undefined) return undefined
  const name = String(value).startsWith('alias/') ? String(value) : `alias/${value}`
  if (aliasPattern.test(name)) return name
  const text = 'An alias has 1 to 250 letters, digits and any of /_-, and does not begin with aws/.'
  throw new GatewayError('ValidationFailed', { text })
}
