/** Where a stored run waits: conditions as the indexes have them, word for word, else they would not be used. */
import { codes } from "./states.js"

const waits = `state in (${codes.scheduled}, ${codes.retrying})`

/** In a line: `runs_lines`. `r`: prefix of the columns. */
export const isInLine = (r = "") => `(${r}state = ${codes.ready} or (${r}${waits} and starts_with(${r}line, '>')))`
/** For its time, outside of lines: `runs_timers`. */
export const isTimer = (r = "") => `${r}${waits} and starts_with(${r}line, '>') is not true`
export const isRunning = `state = ${codes.running}`
/** Of a run without keys that is its task, and not stored. */
export const line = (r = "") => `coalesce(${r}line, ${r}task)`

/** `lines` of a partition, by a skip scan: one probe per line, whatever the number of runs. The last one is null. */
export const linesOf = (partition: string) =>
  `lines as (
      (select ${line()} as line from orrery.runs where partition_id = ${partition} and ${isInLine()}
        order by ${line()} limit 1)
      union all
      select (
        select ${line("r.")} from orrery.runs r
        where r.partition_id = ${partition} and ${isInLine("r.")} and ${line("r.")} > l.line order by ${
    line("r.")
  } limit 1
      ) from lines l where l.line is not null
    )`
