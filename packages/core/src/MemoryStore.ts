/**
 * Journal, partition store, settings of queues and run reader in memory, over one shared state: for tests, and for
 * applications that embed Orrery and can lose their runs with the process. Same fence, same answers as PostgreSQL; passes the same contracts.
 *
 * Bounded: history keeps the newest `historyRunsMax` final runs. Runs that are not final are bounded by their callers
 * only. A page costs one pass over the runs of its partition.
 */
import { Clock, Context, Effect, Exit, Layer } from "effect"
import { Fenced } from "./Errors.js"
import { fromSubmit, Journal } from "./Journal.js"
import { MemoryTables } from "./MemoryTables.js"
import { PartitionStore } from "./PartitionStore.js"
import { QueueSettingsStore } from "./QueueSettingsStore.js"
import { RunReader } from "./RunReader.js"

export interface MemoryStoreOptions {
  /** Final runs kept; the oldest go first. Default 100,000. */
  readonly historyRunsMax?: number
}

const historyRunsMaxDefault = 100_000

export const make = (
  options: MemoryStoreOptions = {}
): Effect.Effect<Context.Context<Journal | PartitionStore | RunReader | QueueSettingsStore>> =>
  Effect.map(Effect.clock, (clock) => {
    const tables = new MemoryTables(options.historyRunsMax ?? historyRunsMaxDefault)
    return Context.empty().pipe(
      Context.add(Journal, journal(tables, clock)),
      Context.add(PartitionStore, partitionStore(tables)),
      Context.add(RunReader, runReader(tables)),
      Context.add(QueueSettingsStore, settingsStore(tables))
    )
  })

export const layerWith = (options: MemoryStoreOptions): Layer.Layer<Journal | PartitionStore | RunReader | QueueSettingsStore> =>
  Layer.effectContext(make(options))

/** A store of its own for each time it is built. */
export const layer: Layer.Layer<Journal | PartitionStore | RunReader | QueueSettingsStore> = layerWith({})

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

const partitionStore = (tables: MemoryTables): PartitionStore["Type"] => ({
  takeOver: (name) => Effect.map(Clock.currentTimeMillis, (now) => tables.takeOver(name, now)),
  readLines: (requests) => Effect.sync(() => tables.readLines(requests)),
  readTimers: (request) => Effect.sync(() => tables.readTimers(request)),
  findRun: (partitionId, id) => Effect.sync(() => tables.findRun(partitionId, id)),
  epochs: (partitionIds) => Effect.sync(() => tables.epochs(partitionIds)),
  newerSettings: (known) => Effect.sync(() => tables.newerSettings(known)),
  now: Clock.currentTimeMillis,
  listWithWork: (except) => Effect.sync(() => tables.listWithWork(except))
})

const runReader = (tables: MemoryTables): RunReader["Type"] => ({
  find: (id) => Effect.map(Clock.currentTimeMillis, (now) => tables.find(id, now)),
  list: (filter) => Effect.map(Clock.currentTimeMillis, (now) => tables.list(filter, now))
})

const settingsStore = (tables: MemoryTables): QueueSettingsStore["Type"] => ({
  find: (name) => Effect.sync(() => tables.findSettings(name)),
  list: (filter) => Effect.sync(() => tables.listSettings(filter)),
  save: (record) => Effect.map(Clock.currentTimeMillis, (now) => tables.saveSettings(record, now))
})
