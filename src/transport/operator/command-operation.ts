/** A command of the table as an operation of the pipeline: strict members, one demand, and a record without what is secret. */
import { GatewayError } from '../../error.ts'
import type { Operation } from '../../pipeline.ts'
import type { OperatorCommand } from './operator-command.ts'

const timeoutMs = 60_000

type Input = Readonly<Record<string, unknown>>

/** `principal-key`, `create` → `PrincipalKeyCreate`: the event's name, and the action's after `hsmgate:`. */
export function operationName({ noun, verb }: Pick<OperatorCommand, 'noun' | 'verb'>): string {
  return `${noun}-${verb}`.replace(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

export function createCommandOperation(command: OperatorCommand): Operation<Input, null, unknown> {
  const name = operationName(command)
  // Both lists for both sides: an answer may repeat what was asked.
  const secret = [...(command.secret ?? []), ...(command.secretAnswer ?? [])]
  return {
    name,
    readOnly: command.readOnly,
    timeoutMs,
    parse: (raw) => parseMembers(command, raw),
    async prepare(_input, { account }) {
      const demand = {
        action: `hsmgate:${name}`,
        resource: '*',
        resourceAccount: account,
        resourcePolicy: null,
        context: new Map(),
      }
      return { resources: null, demands: [demand] }
    },
    perform: (input) => command.run(input as Parameters<OperatorCommand['run']>[0]),
    record(input, _resources, output) {
      return {
        requestParameters: without(input, secret),
        responseElements: command.readOnly || !isObject(output) ? null : without(output, secret),
        resources: [],
      }
    },
  }
}

/** All problems at once. @throws GatewayError `ValidationFailed` */
function parseMembers(command: OperatorCommand, raw: unknown): Input {
  const { members, optional = [] } = command
  if (!isObject(raw)) throw new GatewayError('ValidationFailed', { text: 'The body must be a JSON object.' })
  const problems: string[] = []
  for (const name of Object.keys(raw)) {
    if (!Object.hasOwn(members, name)) problems.push(`${JSON.stringify(name)} is not known`)
  }
  for (const [name, type] of Object.entries(members)) {
    const value = raw[name]
    if (value === undefined) {
      if (!optional.includes(name)) problems.push(`${name} is missing`)
    } else if (type === 'integer' ? !Number.isSafeInteger(value) : typeof value !== type) {
      problems.push(`${name} must be ${type === 'integer' ? 'an' : 'a'} ${type}`)
    }
  }
  if (problems.length > 0) throw new GatewayError('ValidationFailed', { text: `${problems.join('; ')}.` })
  return Object.freeze({ ...raw })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function without(members: Readonly<Record<string, unknown>>, secret: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([name]) => !secret.includes(name)))
}
