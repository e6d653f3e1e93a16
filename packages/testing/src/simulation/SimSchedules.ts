/**
 * Schedules of a simulation: the store of their real actors, the way of their runs to the queues, and what is in the store of
 * their ticks when all is over.
 */
import { ClusterUnavailable, type Fenced, type StoreUnavailable } from "@orrery/core/Errors"
import type { PartitionName } from "@orrery/core/PartitionStore"
import { RunReader } from "@orrery/core/RunReader"
import type { RunRequest } from "@orrery/core/RunRequest"
import { isFinal } from "@orrery/core/RunState"
import { noSameRuns, Runs } from "@orrery/core/Runs"
import * as MemoryScheduleStore from "@orrery/core/schedule/MemoryScheduleStore"
import { idOf, type ScheduleDefinition, type Tick } from "@orrery/core/schedule/ScheduleDefinition"
import { listLimitMax, partitionOf, type ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { Clock, Effect } from "effect"
import type { Mutation } from "./Mutation.js"
import type { Recorder } from "./Recorder.js"
import type { SimNetwork } from "./SimNetwork.js"
import type { EnqueueAnswer, SimNode } from "./SimNode.js"
import type { SimProcess } from "./SimProcess.js"
import type { SimStore } from "./SimStore.js"
import type { World } from "./World.js"

const namespace = "schedules"
const answerMs = 1_500

/** A schedule at a fixed rate, with an end. */
export interface PlannedSchedule {
  readonly definition: ScheduleDefinition
  readonly everyMs: number
  /** ms since 1970. No multiple of `everyMs`. */
  readonly end: number
}

export const placeOf = (partition: number): PartitionName => ({ namespace, queue: namespace, partition })
export const isPlace = (name: PartitionName): boolean => name.namespace === namespace

export class SimSchedules {
  private readonly memory: ScheduleStore["Type"]
  private readonly clock: Clock.Clock

  constructor(
    private readonly world: World,
    private readonly store: SimStore,
    readonly planned: ReadonlyArray<PlannedSchedule>,
    private readonly mutation: Mutation | undefined
  ) {
    const unsafeCurrentTimeMillis = () => world.databaseTime
    const currentTimeMillis = Effect.sync(unsafeCurrentTimeMillis)
    this.clock = Object.assign(Object.create(Clock.make()) as Clock.Clock, {
      unsafeCurrentTimeMillis,
      currentTimeMillis
    })
    const unused = () => Effect.dieMessage("not used")
    const reader = RunReader.of({
      find: (id) => Effect.sync(() => store.tables.find(id, world.databaseTime)),
      findFinal: unused,
      list: unused
    })
    this.memory = Effect.runSync(Effect.provideService(MemoryScheduleStore.make, RunReader, reader))
  }

  get places(): ReadonlyArray<PartitionName> {
    const partitions = new Set(this.planned.map(({ definition }) => partitionOf(idOf(definition))))
    return [...partitions].map(placeOf)
  }

  /** As a process sees it. */
  storeFor(process: SimProcess): ScheduleStore["Type"] {
    const ask = this.store.asking(process)
    const over = <A, E extends Fenced | StoreUnavailable>(operation: string, effect: Effect.Effect<A, E>) =>
      Effect.flatten(ask(operation, () => Effect.runSyncExit(Effect.withClock(effect, this.clock))))
    const { memory } = this
    return {
      takeOver: (partition, owner) => over("takeOver", memory.takeOver(partition, owner)),
      epochs: (partitions) => over("epochs", memory.epochs(partitions)),
      load: (partition, after) => over("load", memory.load(partition, after)),
      loadPromised: (partition, after) => over("loadPromised", memory.loadPromised(partition, after)),
      commit: (batch) =>
        over("commit", memory.commit(this.mutation === "dropPromises" ? { ...batch, promised: [] } : batch)),
      ended: (runs) => over("ended", memory.ended(runs)),
      now: over("now", memory.now),
      find: (id) => over("find", memory.find(id)),
      list: (filter) => over("list", memory.list(filter)),
      ticks: (id, limit) => over("ticks", memory.ticks(id, limit)),
      pruneTicks: (before) => over("pruneTicks", memory.pruneTicks(before))
    }
  }

  private ticksOf(id: string): ReadonlyArray<Tick> {
    return Effect.runSync(this.memory.ticks(id, listLimitMax))
  }

  /** Every instant it had to fire at. `undefined`: it has not been made. */
  private nominalsOf({ definition, end, everyMs }: PlannedSchedule): ReadonlyArray<number> | undefined {
    const made = Effect.runSync(this.memory.find(idOf(definition)))
    if (made === undefined) return undefined
    const first = Math.floor(made.createdAt / everyMs) + 1
    const count = Math.max(0, Math.floor(end / everyMs) - first + 1)
    return Array.from({ length: count }, (_, n) => (first + n) * everyMs)
  }

  /** All are made, every tick is written, and every run of one has ended. */
  get isOver(): boolean {
    return this.planned.every((each) => {
      const nominals = this.nominalsOf(each)
      // One that could not be made before its end has nothing to do any more.
      if (nominals === undefined) return this.world.databaseTime > each.end
      const ticks = this.ticksOf(idOf(each.definition))
      return ticks.reduce((sum, { count }) => sum + count, 0) >= nominals.length
        && ticks.every(({ runId }) => runId === null || this.hasEnded(runId))
    })
  }

  private runsOf(task: string) {
    return this.store.tables.list({ task, limit: listLimitMax }, this.world.databaseTime)
  }

  private hasEnded(id: RunRequest["id"]): boolean {
    const run = this.store.tables.find(id, this.world.databaseTime)
    return run !== undefined && isFinal(run.state)
  }

  /** What the store has of them, for the checkers. */
  tell(recorder: Recorder): void {
    const by = "simulation"
    for (const each of this.planned) {
      const schedule = idOf(each.definition)
      const ids = new Set<string>()
      for (const { count, first, last, outcome, runId } of this.ticksOf(schedule)) {
        recorder.tell({ _tag: "ticked", by, schedule, first, last, count, outcome, run: runId })
        if (runId !== null) ids.add(runId)
      }
      for (const run of this.runsOf(each.definition.run.task)) {
        ids.add(run.id)
        recorder.tell({ _tag: "final", by, run: run.id, state: run.state, rows: 1 })
      }
      const nominals = this.nominalsOf(each) ?? []
      recorder.tell({ _tag: "targets", by, schedule, nominals, runs: [...ids] })
    }
  }
}

/** The way from a node to the owners of queues, wherever they are: what a schedule asks of `Runs`. */
export const runsFrom = (
  network: SimNetwork,
  process: SimProcess,
  ownerOf: (request: RunRequest) => SimNode | undefined
): Runs["Type"] => {
  const unavailable = new ClusterUnavailable({ operation: "enqueue", reason: "simulated" })
  const enqueue = (request: RunRequest) =>
    Effect.async<void, ClusterUnavailable>((resume) => {
      let isOpen = true
      const end = (answer: EnqueueAnswer | "silence"): void => {
        if (!isOpen) return
        isOpen = false
        timer.isCancelled = true
        resume(answer === undefined ? Effect.void : Effect.fail(unavailable))
      }
      const timer = process.later(answerMs, () => end("silence"))
      const owner = ownerOf(request)
      if (owner === undefined) return
      network.send(process, owner.process, () =>
        owner.enqueue([request], ([answer]) =>
          network.send(owner.process, process, () => end(answer))))
    })
  const unused = () => Effect.dieMessage("not used")
  return Runs.of({
    enqueueMany: (requests) => Effect.as(Effect.forEach(requests, enqueue, { discard: true }), noSameRuns),
    cancel: unused,
    get: unused,
    list: unused,
    progress: unused,
    explain: unused,
    redrive: unused,
    edit: unused,
    deleteFinal: unused,
    changes: unused,
    queueChanges: unused,
    awaitFinal: unused
  })
}
