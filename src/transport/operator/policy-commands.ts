/** Commands that ask what policies come to. They read what is in force and change nothing. */
import { GatewayError } from '../../error.ts'
import type { Simulation } from '../../simulation.ts'
import { command, type Input, type OperatorCommand } from './operator-command.ts'

const maxContextChars = 64 * 1024

export function createPolicyCommands(
  simulation: Simulation,
  defaultAccount: string,
  defaultRegion: string,
): readonly OperatorCommand[] {
  const place = (input: Input) => ({
    account: String(input.account ?? defaultAccount),
    region: String(input.region ?? defaultRegion),
  })
  const situation = { action: 'string', key: 'string', context: 'string', account: 'string', region: 'string' } as const
  const optional = ['context', 'account', 'region']

  return [
    command(
      'policy',
      'simulate',
      { members: { ...situation, principal: 'string' }, optional: [...optional, 'key'], readOnly: true },
      (input) =>
        simulation.simulate({
          ...place(input),
          principal: String(input.principal),
          action: String(input.action),
          context: parseContext(input.context),
          ...(input.key === undefined ? {} : { key: String(input.key) }),
        }),
    ),
    command('policy', 'who-can', { members: situation, optional, readOnly: true }, async (input) => ({
      principals: await simulation.whoCan({
        ...place(input),
        action: String(input.action),
        context: parseContext(input.context),
        key: String(input.key),
      }),
    })),
  ]
}

/** A JSON object of condition keys with their values. @throws GatewayError `ValidationFailed` */
function parseContext(text: Input[string]): ReadonlyMap<string, string | readonly string[]> {
  const invalid = () =>
    new GatewayError('ValidationFailed', { text: 'context must be a JSON object of strings and lists of strings.' })
  if (text === undefined) return new Map()
  if (String(text).length > maxContextChars) throw invalid()
  let context: unknown
  try {
    context = JSON.parse(String(text))
  } catch {
    throw invalid()
  }
  if (typeof context !== 'object' || context === null || Array.isArray(context)) throw invalid()
  const values = Object.entries(context)
  const isText = (value: unknown) => typeof value === 'string'
  if (!values.every(([, value]) => isText(value) || (Array.isArray(value) && value.every(isText)))) throw invalid()
  return new Map(values)
}
