/**
 * A member of a cluster, put together. Read it first: it names every part, in the order in which they start.
 *
 * database schema -> the right database -> identity and settings -> shard manager -> actors -> gateway -> data plane -> admission -> watches -> worker
 */
import type { SocketServer } from "@effect/platform"
import type { ClusterConfig } from "@orrery/core/ClusterConfig"
import type { Handlers } from "@orrery/core/Handlers"
import { NodeConfig } from "@orrery/core/NodeConfig"
import type { Queues } from "@orrery/core/Queues"
import { parse as parseRetention } from "@orrery/core/Retention"
import type { Runs } from "@orrery/core/Runs"
import type { Schedules } from "@orrery/core/schedule/Schedules"
import * as PgHistory from "@orrery/store-pg/PgHistory"
import * as PgInbox from "@orrery/store-pg/PgInbox"
import * as PgJournal from "@orrery/store-pg/PgJournal"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPartitionStore from "@orrery/store-pg/PgPartitionStore"
import * as PgPools from "@orrery/store-pg/PgPools"
import * as PgQueueSettings from "@orrery/store-pg/PgQueueSettings"
import * as PgProgressStore from "@orrery/store-pg/PgProgressStore"
import * as PgRunHistory from "@orrery/store-pg/PgRunHistory"
import * as PgRunReader from "@orrery/store-pg/PgRunReader"
import * as PgRunTally from "@orrery/store-pg/PgRunTally"
import * as PgScheduleStore from "@orrery/store-pg/PgScheduleStore"
import { Context, Duration, Effect, Layer, Schedule } from "effect"
import * as Admission from "./Admission.js"
import * as DatabaseMemory from "./DatabaseMemory.js"
import * as Drain from "./Drain.js"
import * as Ends from "./Ends.js"
import * as Gateway from "./Gateway.js"
import * as HeapWatch from "./HeapWatch.js"
import * as InboxDrain from "./InboxDrain.js"
import * as LimiterEntity from "./LimiterEntity.js"
import * as NodeDirectory from "./NodeDirectory.js"
import * as NodeIdentity from "./NodeIdentity.js"
import * as NodeQueues from "./NodeQueues.js"
import * as NodeServer from "./NodeServer.js"
import * as NodeWorker from "./NodeWorker.js"
import * as Peers from "./Peers.js"
import * as PeerWatch from "./PeerWatch.js"
import * as QueueEntity from "./QueueEntity.js"
import * as Reach from "./Reach.js"
import * as Readiness from "./Readiness.js"
import * as Reconciler from "./Reconciler.js"
import * as Remember from "./Remember.js"
import * as Residents from "./Residents.js"
import * as ScheduleEntity from "./ScheduleEntity.js"
import * as SelfWatch from "./SelfWatch.js"
import * as ShardManager from "./ShardManager.js"
import * as StepAside from "./StepAside.js"
import * as UnheardHints from "./UnheardHints.js"

export { StartFailed } from "./NodeIdentity.js"
export { NodeFenced } from "./SelfWatch.js"

export class OrreryNode extends Context.Tag("@orrery/cluster/OrreryNode")<OrreryNode, {
  readonly nodeId: string
  /** `host:port` for clients, workers and other nodes. */
  readonly dataAddress: string
  /** `host:port` for @effect/cluster. */
  readonly runnerAddress: string
  /** Fails when the node must leave: its process exits with code 75 and is started again. */
  readonly fatal: Effect.Effect<never, SelfWatch.NodeFenced>
  readonly residents: Residents.Residents["Type"]
}>() {}

/** The database is waited for at start: 100 ms doubling to 2 s, for `startBudgetMs`. */
const startRetry = (budgetMs: number) =>
  Schedule.exponential("100 millis").pipe(
    Schedule.union(Schedule.spaced("2 seconds")),
    Schedule.upTo(Duration.millis(budgetMs))
  )

/** What runs have told is looked through for runs that are gone, a page at a time. */
const sweepInterval = "10 minutes"

const Swept = Layer.scopedDiscard(
  PgProgressStore.sweep.pipe(
    Effect.repeat({ while: (deleted) => deleted > 0 }),
    Effect.catchAll((error) => Effect.logWarning(`could not sweep what runs have told: ${error.message}`)),
    Effect.delay(sweepInterval),
    Effect.forever,
    Effect.forkScoped
  )
)

/** Migrations, before anything else looks at the database. */
const Prepared = Layer.effectDiscard(
  PgMigrations.run.pipe(
    Effect.mapError((cause) =>
      new NodeIdentity.StartFailed({
        isTemporary: true,
        reason: `the database schema could not be brought up to date: ${reasonOf(cause)}`,
        cause
      })
    )
  )
)

const Enrolled = Layer.scopedDiscard(
  NodeIdentity.enroll.pipe(
    // Closed in turn: it rests before the row goes.
    Effect.zipRight(Effect.flatMap(DatabaseMemory.DatabaseMemory, ({ rest }) => Effect.addFinalizer(() => rest))),
    Effect.catchTag("SqlError", (cause) =>
      new NodeIdentity.StartFailed({
        isTemporary: true,
        reason: `the node could not be recorded: ${reasonOf(cause)}`,
        cause
      }))
  )
)

const Node = Layer.effect(
  OrreryNode,
  Effect.gen(function*() {
    const self = yield* NodeIdentity.NodeIdentity
    const { fatal } = yield* SelfWatch.SelfWatch
    const residents = yield* Residents.Residents
    return OrreryNode.of({
      nodeId: self.nodeId,
      dataAddress: self.dataAddress,
      runnerAddress: self.runnerAddress,
      fatal,
      residents
    })
  })
)

const Pools = Layer.unwrapEffect(
  Effect.zipWith(NodeConfig, NodeIdentity.NodeIdentity, (config, { nodeId }) =>
    PgPools.layer({
      url: config.databaseUrl,
      owner: nodeId,
      journalConnections: config.journalConnections,
      readConnections: config.readConnections
    }).pipe(
      Layer.tapError((error) => Effect.logWarning(`the database does not answer yet: ${reasonOf(error)}`)),
      Layer.retry(startRetry(config.startBudgetMs)),
      Layer.catchAll((cause) =>
        Layer.fail(
          new NodeIdentity.StartFailed({
            isTemporary: true,
            reason: `the database of ORRERY_DATABASE_URL did not answer within ${config.startBudgetMs} ms `
              + `(${reasonOf(cause)}): is it running, and is the URL right?`,
            cause
          })
        )
      )
    ))
)

/** The driver's own words; the wrapper's say nothing. */
const reasonOf = (error: { readonly message: string; readonly cause?: unknown }): string =>
  error.cause instanceof Error
    ? error.cause.message || String((error.cause as NodeJS.ErrnoException).code)
    : error.message

const Journal = Layer.unwrapEffect(
  Effect.map(
    NodeConfig,
    (config) => PgJournal.layer({ pendingBytesMax: config.journalPendingBytesMax, rowsMax: config.journalBatchRowsMax })
  )
)

const Store = Layer.mergeAll(
  Journal,
  PgInbox.layer,
  PgPartitionStore.layer,
  PgProgressStore.layer,
  PgRunReader.layer,
  PgRunHistory.layer,
  PgRunTally.layer,
  PgScheduleStore.layer,
  PgQueueSettings.layer
)

/** Begins once the node is enrolled: nothing is dropped from a database that it would not run on. */
const History = Layer.unwrapEffect(
  Effect.map(NodeConfig, ({ retention }) => PgHistory.layerUpkeep(parseRetention(retention) ?? {}))
)

const Ready = Layer.unwrapEffect(
  Effect.map(
    PgJournal.PgJournalCounters,
    (counters) => Readiness.layer({ commitsWaitingMs: () => counters.unansweredMs })
  )
)

/** Closing the scope drains: the worker first, then the actors hand over, then the data plane goes. */
export const layer: Layer.Layer<
  OrreryNode | Runs | Queues | Schedules,
  NodeIdentity.StartFailed | SocketServer.SocketServerError,
  NodeConfig | ClusterConfig | Handlers
> = Layer.mergeAll(Node, PeerWatch.layer, UnheardHints.layer, Gateway.layerRuns).pipe(
  Layer.provideMerge(NodeWorker.layer),
  Layer.provideMerge(Drain.layer),
  Layer.provideMerge(Admission.layer),
  Layer.provideMerge(NodeServer.layer),
  Layer.provideMerge(Ready),
  Layer.provideMerge(Reconciler.layer),
  Layer.provideMerge(Remember.layer),
  Layer.provideMerge(Layer.provide(ScheduleEntity.layer, Gateway.layerRuns)),
  Layer.provideMerge(
    Layer.merge(Layer.provideMerge(Gateway.layer, Ends.layer), NodeQueues.layer).pipe(
      Layer.provideMerge(InboxDrain.layer)
    )
  ),
  Layer.provideMerge(QueueEntity.layer),
  Layer.provideMerge(Layer.provideMerge(Residents.layer, LimiterEntity.layer)),
  Layer.provideMerge(Layer.provideMerge(StepAside.layer, Reach.layer)),
  Layer.provideMerge(Layer.mergeAll(NodeDirectory.layer, Peers.layer, SelfWatch.layer, HeapWatch.layer)),
  Layer.provideMerge(ShardManager.layer),
  Layer.provideMerge(Layer.merge(Store, History)),
  Layer.provideMerge(Layer.merge(Enrolled, Swept)),
  Layer.provideMerge(DatabaseMemory.layer),
  Layer.provideMerge(Prepared),
  Layer.provideMerge(Pools),
  Layer.provideMerge(NodeIdentity.layer)
)
