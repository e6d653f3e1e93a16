/**
 * A node of @effect/cluster on PostgreSQL, as both of its systems use it: defaults everywhere but for the numbers here.
 * Runners listen on sockets (msgpack); producers are clients only, and what they send is in the database before a runner
 * hears of it.
 */
import { type MessageStorage, RunnerAddress, ShardId, Sharding, ShardingConfig } from "@effect/cluster"
import { NodeClusterSocket } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime, Option, Redacted } from "effect"
import { createServer } from "node:net"
import type { JobPayload, Place, Running, WorkOptions } from "../System.js"
import { countRows } from "./storeCount.js"

export type Node = Sharding.Sharding | MessageStorage.MessageStorage

export const poolSize = 10
/** Sends under way in bulk, as there is no bulk call. */
export const sendsInFlight = 64

/** Logs go to the log of the benchmark; what is normal is not worth a line there. */
const quietly = Logger.minimumLogLevel(LogLevel.Warning)

const database = ({ databaseUrl }: Place) =>
  PgClient.layer({ url: Redacted.make(databaseUrl), maxConnections: poolSize, applicationName: "bench-effect" })

/** Sends, and is sent nothing. */
export const clientOnly = (place: Place): Layer.Layer<Node> =>
  NodeClusterSocket.layer({ clientOnly: true, storage: "sql", serialization: "msgpack" }).pipe(
    Layer.provide(database(place)),
    Layer.orDie,
    Layer.provide(quietly)
  )

const runner = (place: Place, port: number): Layer.Layer<Node> =>
  NodeClusterSocket.layer({
    storage: "sql",
    serialization: "msgpack",
    shardingConfig: { runnerAddress: Option.some(RunnerAddress.make(host, port)) }
  }).pipe(Layer.provide(database(place)), Layer.orDie, Layer.provide(quietly))

const host = "127.0.0.1"

const freePort = () =>
  new Promise<number>((resolve, reject) => {
    const probe = createServer()
    probe.once("error", reject)
    probe.listen(0, host, () => {
      const address = probe.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      probe.close(() => resolve(port))
    })
  })

/** Makes the tables. */
export const prepare = async (place: Place): Promise<void> => {
  const runtime = ManagedRuntime.make(clientOnly(place))
  await runtime.runPromise(Effect.void)
  await runtime.dispose()
}

/** Longer than it takes runners that start together to share the shards: they look at each other every 3 s. */
const settledAfterMs = 4_000
const settlesWithin = "60 seconds"
const lookEvery = "50 millis"

/**
 * A runner with `handlers`, once it has shards; from then on it works.
 *
 * Where the workload limits its handlers they are long, and the jobs come later: it has the shards that it keeps then, as
 * one that is moved starts its running jobs anew.
 */
export const startRunner = async (
  place: Place,
  handlers: Layer.Layer<never, never, Node>,
  { concurrency }: WorkOptions
): Promise<Running> => {
  const runtime = ManagedRuntime.make(Layer.provideMerge(handlers, runner(place, await freePort())))
  await runtime.runPromise(hasShards(concurrency > 0 ? settledAfterMs : 0))
  return { close: () => runtime.dispose() }
}

const shards = Array.from(
  { length: ShardingConfig.defaults.shardsPerGroup },
  (_, at) => ShardId.make("default", at + 1)
)

/** Until there are some, and their number has not changed for so long. */
const hasShards = Effect.fnUntraced(function*(unchangedMs: number) {
  const sharding = yield* Sharding.Sharding
  let held = 0
  let sinceMs = performance.now()
  const look = Effect.sync(() => {
    const count = shards.filter((shard) => sharding.hasShardId(shard)).length
    if (count !== held) sinceMs = performance.now()
    held = count
    return held > 0 && performance.now() - sinceMs >= unchangedMs
  })
  yield* Effect.sleep(lookEvery).pipe(
    Effect.zipRight(look),
    Effect.repeat({ until: (done) => done }),
    Effect.timeoutFail({
      duration: settlesWithin,
      onTimeout: () => new Error(`no shards for this runner, or not for long, within ${settlesWithin}`)
    })
  )
})

/** The handler of the harness; no more than `concurrency` at a time, unless that is 0. */
export const handlerOf = ({ concurrency, handler }: WorkOptions) => {
  const run = (job: JobPayload) =>
    Effect.suspend(() => {
      const waiting = handler(job)
      return waiting === undefined ? Effect.void : Effect.promise(() => waiting)
    })
  if (concurrency === 0) return run
  const slots = Effect.unsafeMakeSemaphore(concurrency)
  return (job: JobPayload) => slots.withPermits(1)(run(job))
}

/** A message is processed when its reply is stored. */
export const remaining = ({ databaseUrl }: Place): Promise<number> =>
  countRows(databaseUrl, "from cluster_messages where not processed")
