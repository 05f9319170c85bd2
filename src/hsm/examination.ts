/**
 * What an examination of a module says, in the words of PKCS#11 (clauses 3.1 to 3.3 of version 3.2): facts as the module states them, and
 * what was measured. Plain JSON values: they cross the worker's pipe and leave in `hsmgate doctor --json`.
 */

export interface ExamineRequest {
  readonly module: string
  readonly initArgs?: string | undefined
  /** At most one; with neither, a module with exactly one initialised token has that one examined. */
  readonly label?: string | undefined
  readonly serial?: string | undefined
}

/** A count of CK_TOKEN_INFO: `null` where the token does not tell (CK_UNAVAILABLE_INFORMATION), `none` where there is no limit. */
export type Limit = number | 'none' | null

export interface TokenFacts {
  /** Slot number in decimal: numbers above 2^53 exist. */
  readonly slot: string
  readonly label: string
  readonly serial: string
  readonly manufacturer: string
  readonly model: string
  readonly firmware: string
  /** Names of CK_TOKEN_INFO.flags without their prefix. */
  readonly flags: readonly string[]
  readonly maxSessions: Limit
  readonly maxRwSessions: Limit
  /** Bytes; `null` where the token does not tell. */
  readonly freePrivateMemory: number | null
}

export interface MechanismFacts {
  /** Without the prefix `CKM_`; hexadecimal where the number has no name here. */
  readonly name: string
  readonly type: number
  readonly minKeySize: number
  readonly maxKeySize: number
}

export interface ModuleFacts {
  readonly cryptokiVersion: string
  readonly manufacturer: string
  readonly description: string
  readonly libraryVersion: string
  readonly slots: number
  readonly tokens: readonly TokenFacts[]
  /** The token asked for, or the only one. */
  readonly token?: TokenFacts
  /** Of that token. */
  readonly mechanisms: readonly MechanismFacts[]
}

export interface IvConduct {
  /** An IV that the caller gives. `ignored`: the ciphertext is not that of the IV. */
  readonly given: 'used' | 'ignored' | 'refused'
  /** An IV of zeros, which some modules take for "make one". */
  readonly zero: 'used' | 'replaced' | 'refused'
  /** IVs asked of the module. `zero`: it makes none and encrypts under zeros. */
  readonly made: 'distinct' | 'repeated' | 'zero' | 'refused'
  /** How many IVs were asked for. */
  readonly drawn: number
}

export interface Rate {
  readonly what: string
  /** Mean time of one operation inside the module, alone. */
  readonly hsmMicros: number
  /** Operations a second with this many sessions at work. */
  readonly perSecond: readonly { readonly sessions: number; readonly rate: number }[]
}

export interface Concurrency {
  /** Sessions at work at once. */
  readonly sessions: number
  readonly operations: number
  /** Answers that do not verify in software. */
  readonly wrong: number
  /** Refusals by return value. */
  readonly failed: Readonly<Record<string, number>>
}

export interface Measurement {
  /** `null` where there is no AES-GCM. */
  readonly ivs: IvConduct | null
  readonly concurrency: Concurrency
  readonly rates: readonly Rate[]
}
