/** Ends of runs in Redis: one key each, which leaves by itself. Who reads one reads no more of it than an end can have. */
import { EndStore, entryBytesMax } from "@orrery/core/EndStore"
import type { RunId } from "@orrery/core/RunId"
import { Effect, FiberSet, Layer } from "effect"
import { RedisClients } from "./RedisClients.js"

/** Longest wait for an entry, ms: its row would have been read meanwhile. */
const getWithinMs = 100
/** On their way to Redis; beyond, an end is not kept. */
const puttingMax = 64

const make = Effect.gen(function*() {
  const { commands, prefix } = yield* RedisClients
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const keyOf = (id: RunId) => `${prefix}:end:${id}`
  let putting = 0

  return EndStore.of({
    put: (id, text, ttlMs) => {
      if (putting >= puttingMax || !commands.isUp() || Buffer.byteLength(text) > entryBytesMax) return
      putting += 1
      fork(
        commands.use("set", (client) => client.set(keyOf(id), text, "PX", ttlMs)).pipe(
          Effect.ignore,
          Effect.ensuring(Effect.sync(() => putting -= 1))
        )
      )
    },
    get: (id) =>
      Effect.suspend(() =>
        commands.isUp()
          // Whatever somebody else has put there, however large.
          ? commands.use("getrange", (client) => client.getrange(keyOf(id), 0, entryBytesMax), getWithinMs)
          : Effect.succeed("")
      ).pipe(
        Effect.orElseSucceed(() => ""),
        Effect.map((text) => text === "" ? undefined : text)
      ),
    isUp: commands.isUp
  })
})

export const layer: Layer.Layer<EndStore, never, RedisClients> = Layer.scoped(EndStore, make)
