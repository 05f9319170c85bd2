/** The configuration that a command works with: the file that options and environment name, and the files that it names in turn. */
import type { Config } from '../config/config.ts'
import { checkFiles } from '../config/files.ts'
import { configPaths, loadConfig } from '../config/load.ts'
import { ProblemsError } from '../problem.ts'
import type { CommonOptions, Terminal } from './terminal.ts'

/** @throws ProblemsError with every problem of the file. */
export function loadEffectiveConfig(options: CommonOptions, { environment }: Terminal): Config {
  return loadConfig(configPaths(options.config, environment), environment)
}

/** As `loadEffectiveConfig`, for a gateway that is to run: modules, PIN files and certificates must be there. */
export function loadRunnableConfig(options: CommonOptions, terminal: Terminal): Config {
  return requireFiles(loadEffectiveConfig(options, terminal))
}

/** @throws ProblemsError naming every file that is missing or open to others. */
export function requireFiles(config: Config): Config {
  const problems = checkFiles(config)
  if (problems.length > 0) throw new ProblemsError(problems)
  return config
}
