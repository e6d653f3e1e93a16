/** `Runs`, `Queues` and `Schedules` of a cluster, for commands: by the addresses given, or by those the database knows. */
import * as RunsClient from "@orrery/api/RunsClient"
import type { ConfigInvalid } from "@orrery/core/Setting"
import { ClusterUnavailable } from "@orrery/core/Errors"
import type { Queues } from "@orrery/core/Queues"
import type { Runs } from "@orrery/core/Runs"
import type { Schedules } from "@orrery/core/schedule/Schedules"
import * as WorkerConfig from "@orrery/core/WorkerConfig"
import { Config, Data, Effect, Layer, Option, type Redacted } from "effect"
import * as Database from "./Database.js"

/** Neither addresses nor a database were given. */
export class NoCluster extends Data.TaggedError("NoCluster")<{}> {
  override get message() {
    return "which cluster? give --nodes HOST:PORT, or set ORRERY_NODES or ORRERY_DATABASE_URL"
  }
}

/** How long a command waits for a cluster that does not answer. */
const budget = "10 seconds"

const databaseUrl = Config.redacted("DATABASE_URL").pipe(
  Config.nested("ORRERY"),
  Config.orElse(() => Config.redacted("DATABASE_URL")),
  Config.option
)

const fromEnv = WorkerConfig.WorkerConfig.pipe(
  Effect.provide(WorkerConfig.layerConfig),
  Effect.map((config) => config.nodes)
)

const fromDatabase = (url: Redacted.Redacted<string>) =>
  Effect.flatMap(Database.dataAddresses(url), (addresses) =>
    addresses.length > 0
      ? Effect.succeed(addresses)
      : new ClusterUnavailable({ operation: "finding nodes", reason: "no node has entered itself in this database" }))

export const addresses = (given: Option.Option<ReadonlyArray<string>>) =>
  Effect.gen(function*() {
    if (Option.isSome(given)) return given.value
    const named = yield* Effect.option(Config.nested(Config.string("NODES"), "ORRERY"))
    if (Option.isSome(named)) return yield* fromEnv
    const url = yield* Effect.orDie(databaseUrl)
    return Option.isSome(url) ? yield* fromDatabase(url.value) : yield* new NoCluster()
  })

export const layer = (
  given: Option.Option<ReadonlyArray<string>>
): Layer.Layer<
  Runs | Queues | Schedules,
  NoCluster | ConfigInvalid | ClusterUnavailable | Database.DatabaseUnavailable
> => Layer.unwrapEffect(Effect.map(addresses(given), (nodes) => RunsClient.layer({ nodes, budget })))
