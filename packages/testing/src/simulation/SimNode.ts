/**
 * One node of a simulation: the real actors, their hub and their residence, in a simulated process. What is left out is
 * what only passes bytes on (sockets, frames, the gateway) and who holds which shard (`SimShards`).
 */
import { ClusterConfig, type Values } from "@orrery/core/ClusterConfig"
import { Journal } from "@orrery/core/Journal"
import { partitionKey, type PartitionName, PartitionStore } from "@orrery/core/PartitionStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import type { RunRequest } from "@orrery/core/RunRequest"
import { Runs } from "@orrery/core/Runs"
import { idOf, type ScheduleDefinition } from "@orrery/core/schedule/ScheduleDefinition"
import { partitionOf, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import type { AttemptRef, OutcomeAnswer, OutcomeReport } from "@orrery/core/WorkerProtocol"
import type { InboxDrain } from "@orrery/cluster/InboxDrain"
import * as OwnedCalls from "@orrery/cluster/OwnedCalls"
import * as Residents from "@orrery/cluster/Residents"
import * as ScheduleResidents from "@orrery/cluster/ScheduleResidents"
import type { HubSession } from "@orrery/cluster/WorkerHub"
import { Effect, Exit, Scope } from "effect"
import type { Mutation } from "./Mutation.js"
import type { Recorder } from "./Recorder.js"
import { SimProcess } from "./SimProcess.js"
import { isSweep } from "./SimInbox.js"
import { isPlace, type SimSchedules } from "./SimSchedules.js"
import type { SimStore } from "./SimStore.js"
import type { World } from "./World.js"

/** A node that has not heard from the database for so long about its locks takes nothing over, ms. */
const confirmedWithinMs = 2_500
const windowBytesMax = 1024 * 1024

export interface NodeOptions {
  readonly cluster: Values
  readonly windowRunsMax: number
  readonly drift: number
  readonly mutation: Mutation | undefined
  readonly schedules: SimSchedules | undefined
  /** The real drain of the inbox, where there is one. */
  readonly inbox: ((node: SimNode) => Effect.Effect<InboxDrain["Type"], never, Scope.Scope>) | undefined
  /** The way of the runs of schedules to their queues. */
  readonly runsFrom: (process: SimProcess) => Runs["Type"]
}

/** An answer to an enqueue: `undefined` means stored. */
export type EnqueueAnswer = "not-owner" | { readonly refused: string; readonly mayTryAgain: boolean } | undefined

/** One incarnation: a node that is started again is another one. */
export class SimNode {
  readonly process: SimProcess
  /** `undefined`: still starting. */
  residents: Residents.Residents["Type"] | undefined
  private inbox: InboxDrain["Type"] | undefined
  private readonly acquired = new Set<() => void>()
  private schedules: ScheduleResidents.ScheduleResidents | undefined
  private readonly hosted = new Map<string, Scope.CloseableScope>()
  /** By its own clock: when the database was last asked about the locks and said yes. */
  confirmedAt = 0

  constructor(
    world: World,
    readonly name: string,
    readonly id: string,
    private readonly recorder: Recorder,
    private readonly store: SimStore,
    private readonly options: NodeOptions
  ) {
    this.process = new SimProcess(world, name, options.drift)
    this.process.later(0, () => this.process.run(this.start))
  }

  private readonly start = Effect.gen(this, function*() {
    const scope = yield* Scope.make()
    const { mutation, schedules, windowRunsMax } = this.options
    const mayAct = () => this.process.monotonic() - this.confirmedAt < confirmedWithinMs
    if (schedules !== undefined) {
      const monotonic = () => this.process.monotonic()
      this.schedules = yield* ScheduleResidents.make({ nodeId: this.id, mayAct, hasOthers: () => true, monotonic })
        .pipe(
          Scope.extend(scope),
          Effect.provideService(ScheduleStore, schedules.storeFor(this.process)),
          Effect.provideService(Runs, this.options.runsFrom(this.process))
        )
    }
    this.residents = yield* Residents.make({
      nodeId: this.id,
      windowBytesMax,
      windowRunsMax: mutation === "unboundedWindow" ? Number.MAX_SAFE_INTEGER : windowRunsMax,
      mayTakeOver: mayAct
    }).pipe(
      Scope.extend(scope),
      Effect.provideService(ClusterConfig, this.options.cluster),
      Effect.provideService(Journal, this.store.journal(this.process)),
      Effect.provideService(PartitionStore, this.store.partitionStore(this.process)),
      Effect.provideService(ProgressStore, this.store.progressStore(this.process))
    )
    if (this.options.inbox !== undefined) this.inbox = yield* Scope.extend(this.options.inbox(this), scope)
  })

  /** The shard manager says that the partition is this node's. */
  own(name: PartitionName): void {
    const key = partitionKey(name)
    const { residents, schedules } = this
    if (residents === undefined || this.hosted.has(key)) return
    this.process.run(Effect.gen(this, function*() {
      const scope = yield* Scope.make()
      this.hosted.set(key, scope)
      const isOurs = () => this.hosted.get(key) === scope
      if (isSweep(name)) return this.acquired.forEach((callback) => callback())
      if (isPlace(name)) return yield* Scope.extend(schedules!.host(name.partition, isOurs), scope)
      // Where it goes it is taken over without being asked for.
      const passage = { isOpen: () => !isOurs(), callHeir: Effect.never }
      yield* Scope.extend(residents.host(name, isOurs, passage), scope)
    }))
  }

  /** It is not, or shall not be, any more. `done`: nothing of it is written from here any more. */
  disown(name: PartitionName, done: () => void = () => undefined): void {
    const key = partitionKey(name)
    const scope = this.hosted.get(key)
    this.hosted.delete(key)
    if (scope === undefined) return done()
    this.process.run(Scope.close(scope, Exit.void), done)
  }

  owns(partition: string): boolean {
    return this.hosted.has(partition)
  }

  onAcquired(callback: () => void): () => void {
    this.acquired.add(callback)
    return () => void this.acquired.delete(callback)
  }

  nudge(partitions: ReadonlyArray<PartitionName>, isForwarded: boolean): void {
    this.inbox?.nudge(partitions, isForwarded)
  }

  enqueue(requests: ReadonlyArray<RunRequest>, done: (answers: ReadonlyArray<EnqueueAnswer>) => void): void {
    const { namespace, queue } = requests[0]!
    const actor = this.residents?.find({ namespace, queue, partition: 0 })
    if (actor === undefined) return done(requests.map(() => "not-owner"))
    this.process.run(OwnedCalls.enqueue(actor, requests), (exit) => {
      if (Exit.isFailure(exit)) return done(requests.map(() => "not-owner"))
      const answers = requests.map((): EnqueueAnswer => undefined)
      for (const { error, index } of exit.value.failures) {
        answers[index] = { refused: error.message, mayTryAgain: "retryAfterMs" in error }
      }
      done(answers)
    })
  }

  /** `done` is told whether it is there. */
  declare(definition: ScheduleDefinition, done: (isThere: boolean) => void): void {
    const partition = partitionOf(idOf(definition))
    if (this.schedules?.has(partition) !== true) return done(false)
    this.process.run(
      this.schedules.call(partition, { _tag: "declare", definition }),
      (exit) => done(Exit.isSuccess(exit))
    )
  }

  cancel({ id, namespace, queue }: RunRequest): void {
    const actor = this.residents?.find({ namespace, queue, partition: 0 })
    if (actor !== undefined) this.process.run(Effect.ignore(actor.cancel(id)))
  }

  /** As the session answers, and the history is told. */
  report(
    session: HubSession,
    reports: ReadonlyArray<OutcomeReport>,
    done: (answers: ReadonlyArray<OutcomeAnswer>) => void
  ): void {
    const askedAt = this.process.world.now
    const given = this.options.mutation === "acceptStaleOutcomes" ? reports.map((each) => this.renewed(each)) : reports
    this.process.run(session.report(given), (exit) => {
      const answers = Exit.isSuccess(exit) ? exit.value : reports.map(() => "not-owner" as const)
      answers.forEach((answer, at) => {
        const { attempt, lease, outcome, runId } = reports[at]!
        if (answer !== "accepted" || outcome._tag === "interrupted") return
        this.recorder.tell({ _tag: "accepted", by: this.name, run: runId, attempt, lease, askedAt })
      })
      done(answers)
    })
  }

  /** What its worker asks of a session, whose answer takes its time. */
  ask<A, E>(question: Effect.Effect<A, E>, done: (found: { readonly value: A } | undefined) => void): void {
    this.process.run(question, (exit) => done(Exit.isSuccess(exit) ? { value: exit.value } : undefined))
  }

  /** Which of the attempts the worker must drop. `undefined`: the partition is not owned here. */
  announce(
    session: HubSession,
    partitionId: number,
    held: ReadonlyArray<AttemptRef>
  ): ReadonlyArray<AttemptRef> | undefined {
    const stale = session.announce(partitionId, held)
    return stale !== undefined && this.options.mutation === "acceptStaleOutcomes" ? [] : stale
  }

  private renewed(report: OutcomeReport): OutcomeReport {
    const actor = this.residents?.list().find(({ partitionId }) => partitionId === report.partitionId)
    const entry = actor?.machine.find(report.runId)
    return entry?.place === "running" ? { ...report, lease: entry.lease, attempt: entry.attempt } : report
  }

  /** What its actors hold, against what they may. */
  measure(tasks: number): void {
    if (!this.process.isAlive) return
    const { windowRunsMax } = this.options
    for (const { machine, partitionId, writing } of this.residents?.list() ?? []) {
      // Each line up to twice its aim between two evictions, and as many held aside while a page is read.
      const inLines = (tasks + 1) * 3 * windowRunsMax
      const limit = inLines + machine.runningCount + [...writing.waiting, ...writing.sent].length
      const what = `entries of partition ${partitionId}`
      this.recorder.tell({ _tag: "measured", by: this.name, what, value: machine.entryCount, limit })
    }
  }
}
