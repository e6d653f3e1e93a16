/** Looks at what the processes hold, as long as they run. Where the system does not tell (no /proc), nothing is looked at. */
import type { Supervised } from "@orrery/cli/Supervisor"
import { Effect, type Scope } from "effect"
import { readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
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
const rssBytes = (pid: number): number | undefined =>
  read(() => Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * pageBytes)

const heldWithin = "5 seconds"

/**
 * What the heap of a process holds after a collection, bytes: what is resident says more of when V8 last collected (in an outage it
 * grew by 150 MB, of which a collection left nothing). `undefined` of one that does not answer within 5 s.
 */
export const heldBytes = (each: Supervised, folder: string): Effect.Effect<number | undefined> =>
  Effect.gen(function*() {
    const pid = yield* each.pid
    if (pid === undefined) return undefined
    const file = join(folder, `held-${pid}`)
    rmSync(file, { force: true })
    yield* each.kill("SIGUSR2")
    const look = Effect.sync(() => read(() => Number(readFileSync(file, "utf8"))))
    return yield* look.pipe(
      Effect.delay("20 millis"),
      Effect.repeat({ until: (bytes) => bytes !== undefined }),
      Effect.timeoutTo({ duration: heldWithin, onSuccess: (bytes) => bytes, onTimeout: () => undefined })
    )
  })

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
