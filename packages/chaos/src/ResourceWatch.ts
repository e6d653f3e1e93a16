/** Looks at what the processes hold, as long as they run. Where the system does not tell (no /proc), nothing is looked at. */
import type { Supervised } from "@orrery/cli/Supervisor"
import { Effect, type Scope } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import type { Writer } from "./HistoryFile.js"

const lookEvery = "1 second"
/** A process under fire starts with some 150 MB; what it holds for a backlog is bounded by its configuration. */
const rssBytesMax = 1024 * 1024 * 1024
const descriptorsMax = 400
const pageBytes = 4_096

const read = <A>(look: () => A): A | undefined => {
  try {
    return look()
  } catch {
    // It has ended.
    return undefined
  }
}

/** Resident memory, bytes. */
export const rssBytes = (pid: number): number | undefined =>
  read(() => Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * pageBytes)

const descriptors = (pid: number): number | undefined => read(() => readdirSync(`/proc/${pid}/fd`).length)

export const start = (processes: ReadonlyArray<Supervised>, history: Writer): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    for (const each of processes) {
      const pid = yield* each.pid
      if (pid === undefined) continue
      for (
        const [what, value, limit] of [
          ["rssBytes", rssBytes(pid), rssBytesMax],
          ["descriptors", descriptors(pid), descriptorsMax]
        ] as const
      ) {
        if (value !== undefined) history.write({ _tag: "measured", what: `${what} ${each.name}`, value, limit })
      }
    }
  }).pipe(Effect.delay(lookEvery), Effect.forever, Effect.forkScoped, Effect.asVoid)
