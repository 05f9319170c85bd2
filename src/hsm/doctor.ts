/**
 * Examines a module and one of its tokens in throw-away worker processes: what it says of itself, what it really does, how fast, and what
 * lies in it. A crash, a hang or a refusal is a finding, never an exception, and ends only the step that met it.
 *
 * One login for each process, and none at all with a PIN that is latched as refused, or while the token says that one try is left.
 */
import { isAbsolute } from 'node:path'
import type { Diagnosis, DoctorOptions, Draft, Patient } from './diagnosis.ts'
import { findFileFault, findReasonNotToLogIn } from './doctor-pin.ts'
import { createSteps } from './doctor-steps.ts'
import type { TokenFacts } from './examination.ts'

export async function diagnose(patient: Patient, options: DoctorOptions): Promise<Diagnosis> {
  const draft: Draft = { module: patient.module, login: { state: 'not tried' }, problems: [], warnings: [] }
  const steps = createSteps(patient, options, draft)
  const missing = isAbsolute(patient.module) ? findFileFault(patient.module) : undefined
  if (missing !== undefined) {
    draft.problems.push({
      at: patient.module,
      cause: `the module ${missing}`,
      remedy: 'install the PKCS#11 module of the HSM, or correct the path',
    })
    return draft
  }
  const facts = await steps.examine()
  if (facts === undefined) return draft
  draft.facts = facts
  const { token } = facts
  if (token === undefined) {
    draft.login = { state: 'not tried', why: 'no token was chosen' }
    if (facts.tokens.length === 0) {
      draft.problems.push({
        at: patient.module,
        cause: `none of its ${facts.slots} slots holds a token`,
        remedy: 'see to the connection to the HSM and to the configuration of its client',
      })
    }
    return draft
  }
  judgeToken(token, draft)
  const why = findReasonNotToLogIn(patient, options, token, draft)
  if (why !== undefined) {
    draft.login = { state: 'not tried', why }
    return draft
  }
  await steps.useToken(token)
  await steps.listObjects(token)
  return draft
}

/** What the token's own flags say. */
function judgeToken({ flags, label }: TokenFacts, draft: Draft): void {
  const at = `token ${label}`
  const has = (flag: string): boolean => flags.includes(flag)
  const problem = (cause: string, remedy: string) => draft.problems.push({ at, cause, remedy })
  const warning = (cause: string, remedy: string) => draft.warnings.push({ at, cause, remedy })
  if (!has('TOKEN_INITIALIZED')) problem('the token is not initialised', "initialise it with the HSM's own tools")
  else if (!has('USER_PIN_INITIALIZED')) {
    problem('the crypto user has no PIN yet', 'have the security officer set one')
  }
  if (has('ERROR_STATE')) problem('the token is in error state', "see the HSM's own diagnosis")
  if (has('USER_PIN_LOCKED')) problem('the PIN of the crypto user is locked', 'have the security officer unlock it')
  if (has('USER_PIN_TO_BE_CHANGED'))
    problem('the PIN must be changed before it can be used', "change it with the HSM's own tools")
  if (has('WRITE_PROTECTED'))
    warning('the token is write-protected: no key can be made', 'lift the protection to create keys')
  if (has('USER_PIN_COUNT_LOW'))
    warning('a wrong PIN was tried lately', 'find out who tries it before the user is locked')
}
