/**
 * Journal, partition store, settings of queues, run reader, history and progress store in memory, over one shared state: for
 * tests, and for applications that embed Orrery and can lose their runs with the process. Same fence, same answers as
 * PostgreSQL; passes the same contracts.
 *
 * Bounded: history keeps final runs for as long as is said of their queues, and of those the newest `historyRunsMax`. Runs
 * that are not final are bounded by their callers only. A page costs one pass over the runs of its partition.
 */
import { Clock, Context, Effect, Exit, Layer } from "effect"
import { Fenced } from "./Errors.js"
import { fromSubmit, Journal } from "./Journal.js"
import { MemoryTables } from "./MemoryTables.js"
import { PartitionStore } from "./PartitionStore.js"
import { QueueSettingsStore } from "./QueueSettingsStore.js"
import { ProgressStore } from "./ProgressStore.js"
import { RunHistory } from "./RunHistory.js"
import { RunReader } from "./RunReader.js"

export interface MemoryStoreOptions {
  /** Final runs kept, whatever their retention; the oldest go first. Default 100,000. */
  readonly historyRunsMax?: number
}

type MemoryServices = Journal | PartitionStore | RunHistory | RunReader | QueueSettingsStore | ProgressStore

const historyRunsMaxDefault = 100_000

export const make = (
  options: MemoryStoreOptions = {}
): Effect.Effect<Context.Context<MemoryServices>> =>
  Effect.map(Effect.clock, (clock) => {
    const tables = new MemoryTables(options.historyRunsMax ?? historyRunsMaxDefault)
    return Context.empty().pipe(
      Context.add(Journal, journal(tables, clock)),
      Context.add(PartitionStore, partitionStore(tables, clock)),
      Context.add(RunReader, runReader(tables, clock)),
      Context.add(RunHistory, { delete: (ids) => Effect.sync(() => tables.deleteFinal(ids)) }),
      Context.add(QueueSettingsStore, settingsStore(tables, clock)),
      Context.add(ProgressStore, progressStore(tables, clock))
    )
  })

export const layerWith = (options: MemoryStoreOptions): Layer.Layer<MemoryServices> =>
  Layer.effectContext(make(options))

/** A store of its own for each time it is built. */
export const layer: Layer.Layer<MemoryServices> = layerWith({})

const journal = (tables: MemoryTables, clock: Clock.Clock): Journal["Type"] =>
  fromSubmit((batch, done) =>
    queueMicrotask(() => {
      const committed = tables.commit(batch, clock.unsafeCurrentTimeMillis())
      done(
        committed === undefined
          ? Exit.fail(new Fenced({ partitionId: batch.partitionId, epoch: batch.epoch }))
          : Exit.succeed(committed)
      )
    })
  )

// The store has one clock, whoever calls: that of the place where it was made.
const partitionStore = (tables: MemoryTables, clock: Clock.Clock): PartitionStore["Type"] => ({
  takeOver: (name) => Effect.sync(() => tables.takeOver(name, clock.unsafeCurrentTimeMillis())),
  readLines: (requests) => Effect.sync(() => tables.readLines(requests)),
  readTimers: (request) => Effect.sync(() => tables.readTimers(request)),
  findRun: (partitionId, id) => Effect.sync(() => tables.findRun(partitionId, id)),
  readIdentities: (partitionId, keys) => Effect.sync(() => tables.readIdentities(partitionId, keys)),
  pruneIdentities: (partitionId, limit) =>
    Effect.map(Clock.currentTimeMillis, (now) => tables.pruneIdentities(partitionId, limit, now)),
  countRuns: (partitionId, limit) => Effect.sync(() => tables.countRuns(partitionId, limit)),
  epochs: (partitionIds) => Effect.sync(() => tables.epochs(partitionIds)),
  countBefore: (place) => Effect.sync(() => tables.countBefore(place)),
  newerSettings: (known) => Effect.sync(() => tables.newerSettings(known)),
  now: clock.currentTimeMillis,
  listWithWork: (except) => Effect.sync(() => tables.listWithWork(except))
})

const runReader = (tables: MemoryTables, clock: Clock.Clock): RunReader["Type"] => ({
  find: (id) => Effect.sync(() => tables.find(id, clock.unsafeCurrentTimeMillis())),
  findFinal: (id) => Effect.sync(() => tables.findFinal(id, clock.unsafeCurrentTimeMillis())),
  list: (filter) => Effect.sync(() => tables.list(filter, clock.unsafeCurrentTimeMillis()))
})

const settingsStore = (tables: MemoryTables, clock: Clock.Clock): QueueSettingsStore["Type"] => ({
  find: (name) => Effect.sync(() => tables.findSettings(name)),
  list: (filter) => Effect.sync(() => tables.listSettings(filter)),
  save: (record) => Effect.sync(() => tables.saveSettings(record, clock.unsafeCurrentTimeMillis()))
})

export const progressStore = (tables: MemoryTables, clock: Clock.Clock = Clock.make()): ProgressStore["Type"] => ({
  write: (batch) =>
    Effect.suspend(() =>
      tables.writeNotes(batch)
        ? Effect.void
        : new Fenced({ partitionId: batch.partitionId, epoch: batch.epoch })
    ),
  find: (ids) => Effect.sync(() => tables.findNotes(ids)),
  checkpoint: (id) => Effect.sync(() => tables.checkpoint(id)),
  endsSince: (query) => Effect.sync(() => tables.endsSince(query, clock.unsafeCurrentTimeMillis())),
  endings: (name, ids) => Effect.sync(() => tables.endings(name, ids))
})
