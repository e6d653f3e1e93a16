/**
 * The name of a task with the version of its payload, as requests, rows and workers have it: `charge` is version 1, `charge@3`
 * version 3. It is what a worker must be able to run, so the dispatcher compares nothing but names, and a node that knows no
 * versions keeps to them all the same.
 */
import { Schema } from "effect"

/** Highest version of a payload. */
export const versionMax = 9_999

/** `@` is in no name that users choose. */
export const versionedPattern = /^[A-Za-z0-9_.:/-]{1,200}(?:@[1-9][0-9]{0,3})?$/

export const VersionedName = Schema.String.pipe(Schema.maxLength(200), Schema.pattern(versionedPattern))

export const versioned = (task: string, version: number | undefined): string =>
  version === undefined || version === 1 ? task : `${task}@${version}`

export const nameOf = (versioned: string): string => {
  const at = versioned.indexOf("@")
  return at < 0 ? versioned : versioned.slice(0, at)
}

/** As a run shows it: version 1 is left out. */
export const partsOf = (versioned: string): { readonly task: string; readonly version?: number } => {
  const at = versioned.indexOf("@")
  return at < 0 ? { task: versioned } : { task: versioned.slice(0, at), version: Number(versioned.slice(at + 1)) }
}
