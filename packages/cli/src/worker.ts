/** `orrery worker`: executes runs in a process of its own. */
import { Command, Options } from "@effect/cli"
import * as LimitKeeper from "@orrery/core/LimitKeeper"
import * as Setting from "@orrery/core/Setting"
import * as WorkerConfig from "@orrery/core/WorkerConfig"
import * as Redis from "@orrery/signals-redis/Redis"
import * as RemoteLinks from "@orrery/worker/RemoteLinks"
import * as Worker from "@orrery/worker/Worker"
import { Effect, Layer, Option } from "effect"
import { randomUUID } from "node:crypto"
import * as HandlersModule from "./handlersModule.js"
import * as options from "./options.js"
import * as supervised from "./supervised.js"

const slots = Options.integer("slots").pipe(
  Options.withDescription("Attempts at a time. Left out: ORRERY_SLOTS, else 8."),
  Options.optional
)

/** Interrupted handlers have this long to end: within the 2 s after which the process is gone for certain. */
const cancelGrace = "1 second"

/** `--handlers` is needed: a worker without handlers does nothing. */
const handlers = Options.file("handlers", { exists: "yes" }).pipe(
  Options.withPseudoName("FILE"),
  Options.withDescription("Module whose default export is a Layer of task handlers (Task.toLayer).")
)

const nodes = Options.text("nodes").pipe(
  Options.withPseudoName("HOST:PORT,..."),
  Options.withDescription("Data addresses of nodes; one that is alive is enough. Left out: ORRERY_NODES."),
  Options.optional
)

const serve = (file: string) =>
  Effect.gen(function*() {
    yield* supervised.begin
    yield* supervised.armFailpoint
    const config = yield* WorkerConfig.WorkerConfig
    yield* supervised.hardEndAfter(config.shutdownGraceMs)
    // As runs name it, so that a process can be found from what it runs.
    const workerId = `worker-${randomUUID()}`
    yield* Layer.build(
      Worker.layer({ workerId, slots: config.slots, shutdownGrace: config.shutdownGraceMs, cancelGrace }).pipe(
        Layer.provide(RemoteLinks.layer({ nodes: config.nodes })),
        Layer.provide(LimitKeeper.joining(HandlersModule.layer(Option.some(file)))),
        Layer.provide(Redis.layerConfig)
      )
    )
    yield* Effect.logInfo("worker started").pipe(
      Effect.annotateLogs({ ...Setting.printed(WorkerConfig.settings, config), workerId })
    )
    yield* supervised.printReady({ nodeId: workerId, dataAddress: "", runnerAddress: "" })
    return yield* Effect.never
  }).pipe(Effect.scoped, Effect.provide(WorkerConfig.layerConfig))

export const command = Command.make("worker", { nodes, slots, handlers }, (flags) =>
  serve(flags.handlers).pipe(
    Effect.provide(options.flagsBeforeEnv({ ORRERY_NODES: flags.nodes, ORRERY_SLOTS: Option.map(flags.slots, String) }))
  )).pipe(
    Command.withDescription(
      "Execute runs in this process, for the tasks the handlers file knows. Prints one JSON line when it is ready; "
        + "logs go to standard error. SIGTERM lets attempts end, then hands the rest back."
    )
  )
