/**
 * Remembers what the probe proved, so that a restart is fast. An entry counts only for the same module file (path, change time, size), token
 * serial, firmware and probe rules; anything unreadable counts as absent, because the probe can always run again.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { loadJsonFile, saveJsonFile } from './durable-file.ts'
import { probeVersion, type WorkerReady } from './frames.ts'
import type { Capabilities } from './port.ts'

export interface CapabilityCache {
  find(token: string, module: string, ready: WorkerReady): Capabilities | undefined
  put(token: string, module: string, ready: WorkerReady, capabilities: Capabilities): void
}

interface Entry {
  readonly validFor: string
  readonly capabilities: Capabilities
}

export function openCapabilityCache(stateDirectory: string): CapabilityCache {
  const path = join(stateDirectory, 'capabilities.json')
  const entries = new Map<string, Entry>(loadEntries(path))
  return {
    find(token, module, ready) {
      const entry = entries.get(token)
      if (entry === undefined || entry.validFor !== validityOf(module, ready)) return undefined
      return entry.capabilities.probe === probeVersion ? entry.capabilities : undefined
    },
    put(token, module, ready, capabilities) {
      entries.set(token, { validFor: validityOf(module, ready), capabilities })
      saveJsonFile(path, Object.fromEntries(entries))
    },
  }
}

function loadEntries(path: string): [string, Entry][] {
  try {
    const value = loadJsonFile(path)
    return typeof value === 'object' && value !== null ? Object.entries(value as Record<string, Entry>) : []
  } catch {
    return []
  }
}

function validityOf(module: string, ready: WorkerReady): string {
  const { mtimeMs, size } = statSync(module)
  return JSON.stringify([module, mtimeMs, size, ready.serial, ready.model, ready.firmware, ready.libraryVersion])
}
