/** `orrery up`: a whole cluster on this machine, with one command. */
import { Command, Options } from "@effect/cli"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Config, Console, Effect, Option, Schema } from "effect"
import * as LocalCluster from "./LocalCluster.js"
import * as options from "./options.js"
import * as supervised from "./supervised.js"

const nodesDefault = 3
const nodesMax = 64
const dataDefault = ".orrery/up"
/** Children drain within 15 s (Supervisor), then the database stops. */
const drainMs = 25_000

const flags = {
  nodes: Options.integer("nodes").pipe(
    Options.withSchema(Schema.Int.pipe(Schema.between(1, nodesMax))),
    Options.withDescription(`How many node processes. Default: ${nodesDefault}.`),
    Options.withDefault(nodesDefault)
  ),
  workerSlots: Options.integer("worker-slots").pipe(
    Options.withSchema(Schema.Int.pipe(Schema.nonNegative())),
    Options.withDescription("Attempts at a time in each node. Left out: ORRERY_WORKER_SLOTS, else 8."),
    Options.optional
  ),
  data: Options.text("data").pipe(
    Options.withPseudoName("DIR"),
    Options.withDescription(`Where the embedded database lives. Default: ${dataDefault}. Not used with DATABASE_URL.`),
    Options.withDefault(dataDefault)
  ),
  handlers: options.handlers,
  json: options.json
}

const givenUrl = Config.redacted("DATABASE_URL").pipe(
  Config.nested("ORRERY"),
  Config.orElse(() => Config.redacted("DATABASE_URL")),
  Config.option,
  Effect.orDie
)

const database = (dataDir: string) =>
  Effect.flatMap(
    givenUrl,
    Option.match({
      onSome: (url) => Effect.succeed(url),
      onNone: () => Effect.map(EmbeddedPostgres.start({ dataDir }), (server) => server.url)
    })
  )

export const command = Command.make(
  "up",
  flags,
  ({ data, handlers, json, nodes, workerSlots }) =>
    Effect.gen(function*() {
      yield* supervised.begin
      yield* supervised.hardEndAfter(drainMs)
      const databaseUrl = yield* database(data)
      const cluster = yield* LocalCluster.start({
        databaseUrl,
        nodes,
        onLine: (name, line) => process.stderr.write(`[${name}] ${line}\n`),
        ...(Option.isSome(handlers) ? { handlers: handlers.value } : {}),
        ...(Option.isSome(workerSlots) ? { workerSlots: workerSlots.value } : {})
      })
      const { addresses } = cluster
      yield* Console.log(
        json ? JSON.stringify({ event: "ready", nodes: addresses }) : welcome(addresses, Option.isSome(handlers))
      )
      // Nodes are started again for as long as it takes; one that cannot be ends the whole.
      return yield* Effect.raceAll(cluster.all.map((child) => Effect.flatMap(child.ended, Effect.fail)))
    }).pipe(Effect.scoped)
).pipe(
  Command.withDescription(
    "Run a cluster on this machine: PostgreSQL (embedded, unless DATABASE_URL is set) and several node processes, "
      + "each started again when it dies. Ctrl-C stops everything cleanly; the data stays."
  )
)

const welcome = (addresses: ReadonlyArray<string>, hasHandlers: boolean): string =>
  [
    `${addresses.length} nodes are ready: ${addresses.join(" ")}`,
    ...(hasHandlers ? [] : ["no --handlers were given: runs wait until a worker comes that knows their task"]),
    "",
    "in another terminal:",
    `  npm run orrery -- enqueue TASK --payload JSON --nodes ${addresses[0]}`,
    `  npm run orrery -- runs list --nodes ${addresses[0]}`,
    "",
    "Ctrl-C stops the cluster."
  ].join("\n")
