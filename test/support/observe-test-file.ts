/** Runs in every worker of vitest before its test file. */
import { expect } from 'vitest'
import { observeTestFile } from './observed-operations.ts'

observeTestFile(expect.getState().testPath)
