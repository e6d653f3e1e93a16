/** A Redis for each measurement of a system that needs one, as durable as the system says it is. */
import * as RedisServer from "@orrery/testing/RedisServer"
import { Effect, Redacted, type Scope } from "effect"
import { UnequalDurability } from "./BenchPostgres.js"
import type { Description } from "./Calls.js"

/** What each promise of a system asks of Redis. Less than `second` is nobody's promise: it is refused. */
const appendfsync = { commit: "always", second: "everysec" } as const

/** Its url. Refused when the server does not keep what the system promises. */
export const start = (
  system: Description
): Effect.Effect<string, RedisServer.RedisServerFailed | UnequalDurability, Scope.Scope> =>
  Effect.gen(function*() {
    const wanted = appendfsync[system.durability]
    const server = yield* RedisServer.start({ appendfsync: wanted })
    const found = yield* Effect.forEach(["appendonly", "appendfsync"], (name) => setting(server, name), {
      concurrency: 2
    })
    const problems = durabilityProblems(wanted, { appendonly: found[0]!, appendfsync: found[1]! })
    if (problems.length > 0) return yield* new UnequalDurability({ store: `Redis ${server.version}`, problems })
    return Redacted.value(server.url)
  })

/** `always` is at least as much as `everysec`. */
export const durabilityProblems = (
  wanted: "always" | "everysec",
  found: { readonly appendonly: string; readonly appendfsync: string }
): ReadonlyArray<string> => [
  ...(found.appendonly === "yes" ? [] : [`appendonly ${found.appendonly} (must be yes)`]),
  ...(found.appendfsync === wanted || found.appendfsync === "always"
    ? []
    : [`appendfsync ${found.appendfsync} (must be ${wanted})`])
]

/** The reply is a list of two: the name, the value. */
const setting = (server: RedisServer.RedisServer, name: string) =>
  RedisServer.execute(server.url, "CONFIG", "GET", name).pipe(
    Effect.map((reply) => reply.split("\r\n").at(-1) ?? ""),
    Effect.mapError((cause) =>
      new RedisServer.RedisServerFailed({ reason: "StartFailed", detail: `its settings: ${String(cause)}`, cause })
    )
  )
