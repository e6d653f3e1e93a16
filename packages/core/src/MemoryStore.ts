/**
 * Journal, partition store, run reader and progress store in memory, over one shared state: for tests, and for applications that embed
 * Orrery and can lose their runs with the process. Same fence, same answers as PostgreSQL; passes the same contracts.
 *
 * Bounded: history keeps the newest `historyRunsMax` final runs. Runs that are not final are bounded by their callers
 * only. A page costs one pass over the runs of its partition.
 */
import { Clock, Context, Effect, Exit, Layer } from "effect"
import { Fenced } from "./Errors.js"
import { fromSubmit, Journal } from "./Journal.js"
import { MemoryTables } from "./MemoryTables.js"
import { PartitionStore } from "./PartitionStore.js"
import { ProgressStore } from "./ProgressStore.js"
import { RunReader } from "./RunReader.js"

export interface MemoryStoreOptions {
  /** Final runs kept; the oldest go first. Default 100,000. */
  readonly historyRunsMax?: number
}

const historyRunsMaxDefault = 100_000

export const make = (
  options: MemoryStoreOptions = {}
): Effect.Effect<Context.Context<Journal | PartitionStore | RunReader | ProgressStore>> =>
  Effect.map(Effect.clock, (clock) => {
    const tables = new MemoryTables(options.historyRunsMax ?? historyRunsMaxDefault)
    return Context.empty().pipe(
      Context.add(Journal, journal(tables, clock)),
      Context.add(PartitionStore, partitionStore(tables)),
      Context.add(RunReader, runReader(tables)),
      Context.add(ProgressStore, progressStore(tables))
    )
  })

export const layerWith = (
  options: MemoryStoreOptions
): Layer.Layer<Journal | PartitionStore | RunReader | ProgressStore> => Layer.effectContext(make(options))

/** A store of its own for each time it is built. */
export const layer: Layer.Layer<Journal | PartitionStore | RunReader | ProgressStore> = layerWith({})

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
  now: Clock.currentTimeMillis,
  listWithWork: (except) => Effect.sync(() => tables.listWithWork(except))
})

const runReader = (tables: MemoryTables): RunReader["Type"] => ({
  find: (id) => Effect.map(Clock.currentTimeMillis, (now) => tables.find(id, now)),
  findFinal: (id) => Effect.sync(() => tables.findFinal(id)),
  list: (filter) => Effect.map(Clock.currentTimeMillis, (now) => tables.list(filter, now))
})

export const progressStore = (tables: MemoryTables): ProgressStore["Type"] => ({
  write: (batch) =>
    Effect.suspend(() =>
      tables.writeNotes(batch)
        ? Effect.void
        : new Fenced({ partitionId: batch.partitionId, epoch: batch.epoch })
    ),
  find: (ids) => Effect.sync(() => tables.findNotes(ids)),
  checkpoint: (id) => Effect.sync(() => tables.checkpoint(id)),
  endsSince: (query) => Effect.map(Clock.currentTimeMillis, (now) => tables.endsSince(query, now))
})
