/**
 * Journal, partition store and run reader in memory, over one shared state: for tests, and for applications that embed
 * Orrery and can lose their runs with the process. Same fence, same answers as PostgreSQL; passes the same contracts.
 *
 * Bounded: history keeps the newest `historyRunsMax` final runs. Runs that are not final are bounded by their callers
 * only. A page costs one pass over the runs of its partition.
 */
import { Clock, Context, Effect, Exit, Layer } from "effect"
import { Fenced } from "./Errors.js"
import { fromSubmit, Journal, type JournalBatch, type RunFinish, type StoredRun } from "./Journal.js"
import { type Page, type PageRequest, partitionKey, type PartitionName, PartitionStore } from "./PartitionStore.js"
import type { Run, RunFailure } from "./Run.js"
import type { RunId } from "./RunId.js"
import { RunReader } from "./RunReader.js"
import { listBytesMax, listLimitMax, type RunFilter } from "./Runs.js"

export interface MemoryStoreOptions {
  /** Final runs kept; the oldest go first. Default 100,000. */
  readonly historyRunsMax?: number
}

const historyRunsMaxDefault = 100_000

interface Partition {
  readonly id: number
  readonly name: PartitionName
  epoch: number
  readonly runs: Map<RunId, StoredRun>
}

interface State {
  readonly byKey: Map<string, Partition>
  readonly byId: Map<number, Partition>
  /** Which partition holds a run that is not final. */
  readonly home: Map<RunId, Partition>
  /** In the order of their ends. */
  readonly history: Map<RunId, Run>
  readonly historyRunsMax: number
}

export const make = (
  options: MemoryStoreOptions = {}
): Effect.Effect<Context.Context<Journal | PartitionStore | RunReader>> =>
  Effect.map(Effect.clock, (clock) => build(options, clock))

const build = (options: MemoryStoreOptions, clock: Clock.Clock) => {
  const state: State = {
    byKey: new Map(),
    byId: new Map(),
    home: new Map(),
    history: new Map(),
    historyRunsMax: options.historyRunsMax ?? historyRunsMaxDefault
  }
  return Context.empty().pipe(
    Context.add(Journal, journal(state, clock)),
    Context.add(PartitionStore, partitionStore(state)),
    Context.add(RunReader, runReader(state))
  )
}

export const layerWith = (options: MemoryStoreOptions): Layer.Layer<Journal | PartitionStore | RunReader> =>
  Layer.effectContext(make(options))

/** A store of its own for each time it is built. */
export const layer: Layer.Layer<Journal | PartitionStore | RunReader> = layerWith({})

const journal = (state: State, clock: Clock.Clock): Journal["Type"] =>
  fromSubmit((batch, done) =>
    queueMicrotask(() => {
      const now = clock.unsafeCurrentTimeMillis()
      const partition = state.byId.get(batch.partitionId)
      if (partition === undefined || partition.epoch !== batch.epoch) {
        return done(Exit.fail(new Fenced({ partitionId: batch.partitionId, epoch: batch.epoch })))
      }
      // Without a pause in between: nobody sees a half-written batch.
      done(Exit.succeed({ duplicates: write(state, partition, batch, now), now }))
    })
  )

const write = (state: State, partition: Partition, batch: JournalBatch, now: number): ReadonlySet<RunId> => {
  const duplicates = new Set<RunId>()
  // As in one SQL statement: updates and finishes see the runs as they were before it.
  const updates = batch.updates.filter(({ id }) => partition.runs.has(id))
  const finishes = batch.finishes.filter(({ id }) => partition.runs.has(id))
  for (const { run } of batch.inserts) {
    const home = state.home.get(run.id)
    // The same batch once more: its own run is no duplicate.
    if (home === partition && partition.runs.get(run.id)!.seq === run.seq) continue
    if (home !== undefined || state.history.has(run.id)) duplicates.add(run.id)
    else {
      state.home.set(run.id, partition)
      partition.runs.set(run.id, { ...run })
    }
  }
  for (const update of updates) partition.runs.set(update.id, { ...partition.runs.get(update.id)!, ...update })
  for (const finish of finishes) end(state, partition, finish, now)
  return duplicates
}

const end = (state: State, partition: Partition, finish: RunFinish, now: number): void => {
  const run = partition.runs.get(finish.id)!
  partition.runs.delete(finish.id)
  state.home.delete(finish.id)
  if (!finish.keep) return
  const { keep: _, ...end } = finish
  const final = { ...run, ...end }
  state.history.set(finish.id, shown(partition, final, { finishedAt: now, result: finish.result }))
  if (state.history.size > state.historyRunsMax) state.history.delete(state.history.keys().next().value!)
}

const partitionStore = (state: State): PartitionStore["Type"] => {
  const runsOf = (partitionId: number) => [...(state.byId.get(partitionId)?.runs.values() ?? [])]
  const pageOf = (request: PageRequest, belongs: (run: StoredRun) => boolean, keyOf: (run: StoredRun) => number) =>
    Effect.sync(() => cut(request, runsOf(request.partitionId).filter(belongs), keyOf))
  return {
    takeOver: (name) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const partition = raise(state, name)
        const runs = [...partition.runs.values()]
        return {
          partitionId: partition.id,
          epoch: partition.epoch,
          now,
          readyTasks: [...new Set(runs.filter((run) => run.state === "ready").map((run) => run.task))].sort(),
          hasTimers: runs.some(isTimer),
          running: runs.filter((run) => run.state === "running")
        }
      }),
    readReady: (request) =>
      pageOf(request, (run) => run.state === "ready" && run.task === request.task, (run) => run.orderKey),
    readTimers: (request) => pageOf(request, isTimer, (run) => run.scheduledAt),
    findRun: (partitionId, id) => Effect.sync(() => state.byId.get(partitionId)?.runs.get(id)),
    listWithWork: Effect.sync(() =>
      [...state.byId.values()].filter((partition) => partition.runs.size > 0).map((partition) => partition.name)
    )
  }
}

const isTimer = (run: StoredRun): boolean => run.state === "scheduled" || run.state === "retrying"

const raise = (state: State, name: PartitionName): Partition => {
  const key = partitionKey(name)
  let partition = state.byKey.get(key)
  if (partition === undefined) {
    partition = { id: state.byKey.size + 1, name, epoch: 0, runs: new Map() }
    state.byKey.set(key, partition)
    state.byId.set(partition.id, partition)
  }
  partition.epoch += 1
  return partition
}

const cut = (request: PageRequest, runs: ReadonlyArray<StoredRun>, keyOf: (run: StoredRun) => number): Page => {
  const after = runs
    .filter((run) => keyOf(run) > request.afterKey || (keyOf(run) === request.afterKey && run.seq > request.afterSeq))
    .sort((a, b) => keyOf(a) - keyOf(b) || a.seq - b.seq)
  let count = 0
  let bytes = 0
  for (const run of after) {
    bytes += new TextEncoder().encode(run.payload).length
    if (count >= request.limit || (count > 0 && bytes > request.bytesMax)) break
    count += 1
  }
  return { runs: after.slice(0, count), complete: count === after.length }
}

const runReader = (state: State): RunReader["Type"] => {
  const live = (id: RunId, now: number): Run | undefined => {
    const partition = state.home.get(id)
    return partition && asOf(shown(partition, partition.runs.get(id)!), now)
  }
  return {
    find: (id) => Effect.map(Clock.currentTimeMillis, (now) => live(id, now) ?? state.history.get(id)),
    list: (filter) =>
      Effect.map(Clock.currentTimeMillis, (now) =>
        withinBytes(
          [...state.home.keys(), ...state.history.keys()]
            .filter((id) => filter.before === undefined || id < filter.before)
            .sort((a, b) => (a < b ? 1 : a > b ? -1 : 0))
            .map((id) => (live(id, now) ?? state.history.get(id))!)
            .filter((run) => matches(filter, run))
            .slice(0, Math.min(filter.limit, listLimitMax))
        ))
  }
}

/** Up to the bytes of a page, but one in any case. */
const withinBytes = (runs: ReadonlyArray<Run>): ReadonlyArray<Run> => {
  let bytes = 0
  const end = runs.findIndex(({ payload, result }, at) => {
    bytes += Buffer.byteLength(payload) + Buffer.byteLength(result ?? "")
    return at > 0 && bytes > listBytesMax
  })
  return end < 0 ? runs : runs.slice(0, end)
}

const matches = (filter: RunFilter, run: Run): boolean =>
  (filter.namespace === undefined || run.namespace === filter.namespace)
  && (filter.queue === undefined || run.queue === filter.queue)
  && (filter.task === undefined || run.task === filter.task)
  && (filter.state === undefined || run.state === filter.state)

/** A run whose time has come waits for nothing but a worker. */
const asOf = (run: Run, now: number): Run =>
  (run.state === "scheduled" || run.state === "retrying") && run.scheduledAt <= now ? { ...run, state: "ready" } : run

const shown = (
  { name }: Partition,
  run: Omit<StoredRun, "state"> & Pick<Run, "state">,
  end: Pick<Run, "finishedAt" | "result"> = { finishedAt: null, result: null }
): Run => ({
  id: run.id,
  namespace: name.namespace,
  queue: name.queue,
  partition: name.partition,
  task: run.task,
  state: run.state,
  priority: run.priority,
  createdAt: run.createdAt,
  scheduledAt: run.scheduledAt,
  startedAt: run.startedAt,
  ...end,
  attempt: run.attempt,
  payload: run.payload,
  failure: run.failure === null ? null : JSON.parse(run.failure) as RunFailure,
  worker: run.worker,
  waitsFor: null
})
