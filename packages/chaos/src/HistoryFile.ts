/**
 * The history a process writes of itself: one line of JSON per event, each in the hands of the operating system before the
 * process goes on, so that a process that is killed has told all it did.
 */
import type { HistoryEvent } from "@orrery/testing/history/HistoryEvent"
import { openSync, readdirSync, readFileSync, writeSync } from "node:fs"
import { join } from "node:path"

/** One clock for all processes of a machine, whatever is done to the clock of `Date`. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6

type Distributed<Event> = Event extends unknown ? Omit<Event, "at" | "by"> : never
/** An event without what the writer knows itself. */
export type Told = Distributed<HistoryEvent>

export interface Writer {
  readonly write: (event: Told) => void
}

const suffix = ".history.jsonl"

/** A file of this process alone. It is closed by the end of the process. */
export const open = (folder: string, by: string): Writer => {
  const file = openSync(join(folder, `${by}-${process.pid}${suffix}`), "a")
  return { write: (event) => void writeSync(file, `${JSON.stringify({ at: monotonicMs(), by, ...event })}\n`) }
}

/** Of all processes, in order of time. */
export const readAll = (folder: string): Array<HistoryEvent> =>
  readdirSync(folder).filter((file) => file.endsWith(suffix)).flatMap((file) => parse(join(folder, file)))
    .sort((one, other) => one.at - other.at)

/** A process may die in the middle of its last line, and only there. */
const parse = (file: string): Array<HistoryEvent> => {
  const lines = readFileSync(file, "utf8").split("\n")
  const torn = lines.pop()
  if (torn === undefined) return []
  return lines.map((line) => JSON.parse(line) as HistoryEvent)
}
