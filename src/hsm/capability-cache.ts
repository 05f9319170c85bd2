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
      const validity = validityOf(module, ready)
      if (entry === undefined || validity === undefined || entry.validFor !== validity) return undefined
      return entry.capabilities.probe === probeVersion ? entry.capabilities : undefined
    },
    put(token, module, ready, capabilities) {
      const validFor = validityOf(module, ready)
      if (validFor === undefined) return
      entries.set(token, { validFor, capabilities })
      try {
        saveJsonFile(path, Object.fromEntries(entries))
      } catch {} // a full disk costs a slower restart, not this one
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

/** `undefined` for a module that the loader finds by name: its file is not known here. */
function validityOf(module: string, ready: WorkerReady): string | undefined {
  const file = statSync(module, { throwIfNoEntry: false })
  if (file === undefined) return undefined
  const { mtimeMs, size } = file
  return JSON.stringify([module, mtimeMs, size, ready.serial, ready.model, ready.firmware, ready.libraryVersion])
}
