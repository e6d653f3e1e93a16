/**
 * Orrery for tests of programs that use it: one process, nothing to install, nothing kept, and time stands still until the test
 * moves it. The actors, the worker and the schedules are those of a cluster; only the store is memory.
 *
 * For `it.effect` and `it.scoped`, whose clock is the `TestClock`. Runs are due, handlers sleep, and attempts time out by it.
 */
import * as Residents from "@orrery/cluster/Residents"
import * as ScheduleResidents from "@orrery/cluster/ScheduleResidents"
import * as SoloNode from "@orrery/cluster/SoloNode"
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import type { ConfigInvalid } from "@orrery/core/Setting"
import * as codedPorts from "@orrery/core/codedPorts"
import * as Handlers from "@orrery/core/Handlers"
import * as MemoryStore from "@orrery/core/MemoryStore"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import type { QueueRetention } from "@orrery/core/Retention"
import type { Run } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import { parsePolicy, type RunRequest } from "@orrery/core/RunRequest"
import type { RunState } from "@orrery/core/RunState"
import { Runs } from "@orrery/core/Runs"
import * as MemoryScheduleStore from "@orrery/core/schedule/MemoryScheduleStore"
import { idOf } from "@orrery/core/schedule/ScheduleDefinition"
import { Schedules } from "@orrery/core/schedule/Schedules"
import { partitionCount, partitionOf, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import type { Task } from "@orrery/core/Task"
import { nameOf, partsOf } from "@orrery/core/TaskName"
import { Context, Data, Duration, Effect, Exit, Layer, Scope, type TestClock } from "effect"
import { type Matcher, matches } from "./kit/matches.js"
import { untilQuiet, type Watched } from "./kit/quiet.js"
import { TestAttempts } from "./kit/TestAttempts.js"
import { makeTime, nextWake, onNode, real, testClock } from "./kit/TestTime.js"
import * as TestWorkers from "./kit/TestWorkers.js"

export type { Like, Matcher } from "./kit/matches.js"

/** A run as a test looks at it. */
export interface Enqueued<P> {
  readonly id: RunId
  readonly payload: P
  readonly state: RunState
  /** Attempts begun so far. */
  readonly attempt: number
  readonly priority: number
  /** By the clock of the test, ms. */
  readonly scheduledAt: number
}

/** No run of the task is as it was expected; or one is that should not be there. */
export class EnqueuedMismatch extends Data.TaggedError("EnqueuedMismatch")<{
  readonly task: string
  readonly expected: "a matching run" | "no matching run"
  readonly found: ReadonlyArray<Enqueued<unknown>>
}> {
  override get message() {
    const runs = this.found.slice(0, 20).map(({ payload, state }) => `\n  ${state} ${JSON.stringify(payload)}`)
    return `expected ${this.expected} of ${this.task}, its runs are (${this.found.length}):${runs.join("")}`
  }
}

/** What is asked of a task. */
type TaskOf<P> = Pick<Task<string, P, unknown, unknown, unknown, unknown, unknown>, "name" | "namespace" | "payloadOf">

interface Kit {
  /**
   * Moves the clock, and stops at each instant on the way at which something is due, until all that follows from it has
   * happened: delays, retries, schedules, timeouts, and sleeps of handlers come in their order.
   *
   * `TestClock.adjust` moves it too, without these stops: runs that become due on the way then find it at its end.
   */
  readonly advance: (duration: Duration.DurationInput) => Effect.Effect<void>
  /**
   * Waits until nothing can happen any more at this instant: what can run has run, or waits for the clock. A handler that
   * waits for something real is waited for as long as `patience`; for such a run await its `result` instead.
   */
  readonly drain: Effect.Effect<void>
  /** The runs of the task, those that are over too, in the order of their ids, which is that of their making. */
  readonly enqueued: <P>(task: TaskOf<P>) => Effect.Effect<ReadonlyArray<Enqueued<P>>>
  /** The first run of the task that matches; without `matcher`, the first. */
  readonly assertEnqueued: <P>(task: TaskOf<P>, matcher?: Matcher<P>) => Effect.Effect<Enqueued<P>, EnqueuedMismatch>
  readonly assertNotEnqueued: <P>(task: TaskOf<P>, matcher?: Matcher<P>) => Effect.Effect<void, EnqueuedMismatch>
  /** The next attempt of the task fails with this error in place of calling its handler. Those asked for before come first. */
  readonly failNext: <E>(
    task: { readonly name: string; readonly error: { readonly Type: E } },
    error: NoInfer<E>
  ) => Effect.Effect<void>
  /** The same with a defect. */
  readonly dieNext: <P>(task: TaskOf<P>, defect: unknown) => Effect.Effect<void>
  /**
   * The worker is killed in the next attempt of the task: `before` its handler has done anything, or (the default) `after` it has
   * done everything, and the outcome is lost. No finalizer runs. Another worker comes at once.
   */
  readonly crashNext: <P>(task: TaskOf<P>, when?: "before" | "after") => Effect.Effect<void>
  /** Kills the worker now, with all attempts it is at. */
  readonly crashWorker: Effect.Effect<void>
  /** The runs as the cluster has them: not decoded by the `codec`. */
  readonly cluster: Runs["Type"]
}

export interface OrreryTestOptions<E, R> {
  /** Made with `task.toLayer`; several with `Layer.mergeAll`. They may enqueue. */
  readonly handlers?: Layer.Layer<never, E, R>
  /**
   * A run that is due executes before its enqueue answers, and what it enqueues as well. It fails as it would otherwise: the
   * enqueue does not.
   */
  readonly inline?: boolean
  /** Attempts at a time. Default 64. */
  readonly slots?: number
  /** How long `drain` waits for a handler that waits for something real. Default 50 ms. */
  readonly patience?: Duration.DurationInput
  /** Between the program and the cluster: `PayloadCodec`. */
  readonly codec?: PayloadCodec.Codec
  /** As of a cluster, but a killed worker's attempts start again at once (`lostWorkerGraceMs: 0`). */
  readonly cluster?: Partial<ClusterConfig.Values>
  /** How long final runs are kept, by the clock of the test. Default: to the end of the test, so that it can look at them. */
  readonly retention?: QueueRetention
}

const everything: QueueRetention = { succeeded: "forever", failed: "forever", cancelled: "forever", expired: "forever" }

type Given = Handlers.Handlers | Runs | Schedules | OrreryTest

export class OrreryTest extends Context.Tag("@orrery/testing/OrreryTest")<OrreryTest, Kit>() {
  static readonly layer = <E = never, R = never>(
    options: OrreryTestOptions<E, R> = {}
  ): Layer.Layer<OrreryTest | Runs | Schedules, E | ConfigInvalid, Exclude<R, Given>> =>
    Layer.scopedContext(make(options)) as Layer.Layer<
      OrreryTest | Runs | Schedules,
      E | ConfigInvalid,
      Exclude<R, Given>
    >
}

const make = <E, R>(options: OrreryTestOptions<E, R>) =>
  Effect.gen(function*() {
    const clock = yield* testClock
    const { handlers = Layer.empty, slots = 64 } = options
    // Actors write by real timers what they have decided when they end.
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => real(Scope.close(scope, Exit.void)))
    const config = yield* Layer.build(ClusterConfig.layer({ lostWorkerGraceMs: 0, ...options.cluster }))
    const store = yield* MemoryStore.make()
    const time = yield* makeTime(clock)
    const residents = yield* Residents.make({
      nodeId: "node",
      windowRunsMax: NodeConfig.windowRunsMaxDefault,
      windowBytesMax: NodeConfig.windowBytesMaxDefault,
      mayTakeOver: () => true,
      time,
      retention: options.retention ?? everything
    }).pipe(Effect.provide(config), Effect.provide(store), Scope.extend(scope), real)
    const solo = yield* SoloNode.make(residents, NodeConfig.passivateAfterMsDefault).pipe(
      Effect.provide(config),
      Effect.provide(store),
      Scope.extend(scope),
      real
    )

    const attempts = new TestAttempts(clock)
    let calls = 0
    /** Those whose runs leave nothing behind: an end of theirs is seen here only. */
    const unkept = new Map<RunId, RunRequest>()
    /** Nothing runs before the worker is there. */
    const late: { watched?: Watched } = {}
    const drain = Effect.suspend(() => late.watched === undefined ? Effect.void : untilQuiet(late.watched))
    const crash = Effect.suspend(() => late.watched!.workers.crash)
    const runs = Runs.of({
      enqueueMany: (requests) => {
        const enqueue = Effect.suspend(() => {
          calls += 1
          return Effect.ensuring(onNode(solo.enqueueMany(requests)), Effect.sync(() => calls -= 1))
        }).pipe(Effect.tap(() => note(unkept, requests)))
        return options.inline === true ? attempts.waiting(Effect.zipLeft(enqueue, drain)) : enqueue
      },
      get: (id) => onNode(solo.get(id)),
      list: (filter) => onNode(solo.list(filter)),
      progress: (id) => onNode(solo.progress(id)),
      explain: (id) => onNode(solo.explain(id)),
      changes: (id, after, waitMs) => attempts.waiting(onNode(solo.changes(id, after, waitMs))),
      queueChanges: (name, after, waitMs) => attempts.waiting(onNode(solo.queueChanges(name, after, waitMs))),
      cancel: (id) => onNode(solo.cancel(id)),
      edit: (id, edit) => onNode(solo.edit(id, edit)),
      deleteFinal: (ids) => onNode(solo.deleteFinal(ids)),
      redrive: (id, payload) => onNode(solo.redrive(id, payload)),
      awaitFinal: (id) => attempts.waiting(onNode(solo.awaitFinal(id)))
    })
    const seen = options.codec === undefined ? runs : codedPorts.runs(options.codec, runs)
    const schedules = yield* makeSchedules(clock).pipe(
      Effect.provideService(Runs, runs),
      Effect.provide(store),
      Scope.extend(scope)
    )

    const registry = yield* Layer.build(Handlers.layer)
    const kit = makeKit({ attempts, clock, runs: seen, cluster: runs, unkept, drain, crash })
    const { codec } = options
    const ports = Context.make(OrreryTest, kit).pipe(
      Context.add(Runs, seen),
      Context.add(Schedules, codec === undefined ? schedules : codedPorts.schedules(codec, schedules))
    )
    const own = codec === undefined ? ports : Context.add(ports, PayloadCodec.PayloadCodec, codec)
    yield* Layer.build(handlers).pipe(Effect.provide(Context.merge(own, registry)), Scope.extend(scope))
    const registered = Context.get(registry, Handlers.Handlers)
    const known = codec === undefined ? registered : codedPorts.handlers(codec, registered)
    const { leaseMs } = Context.get(config, ClusterConfig.ClusterConfig)
    const workers = yield* TestWorkers.make({ hub: residents.hub, leaseMs, slots, clock, handlers: known, attempts })
      .pipe(Scope.extend(scope))
    const patienceMs = Duration.toMillis(options.patience ?? "50 millis")
    const tasks = new Set(known.names())
    late.watched = { residents, workers, attempts, tasks, slots, calls: () => calls, patienceMs }
    return own
  })

/** Unkept runs that are remembered. */
const unkeptMax = 100_000

const note = (unkept: Map<RunId, RunRequest>, requests: ReadonlyArray<RunRequest>) =>
  Effect.sync(() => {
    for (const request of requests) {
      const policy = parsePolicy(request.policy)
      if ("retention" in policy && policy.retention === "none") unkept.set(request.id, request)
      if (unkept.size > unkeptMax) unkept.delete(unkept.keys().next().value!)
    }
  })

const makeSchedules = (clock: TestClock.TestClock) =>
  Effect.gen(function*() {
    const store = yield* MemoryScheduleStore.make
    const monotonic = () => clock.unsafeCurrentTimeMillis()
    const residents = yield* ScheduleResidents.make({ nodeId: "node", mayAct: () => true, monotonic, isExact: true })
      .pipe(Effect.provideService(ScheduleStore, store))
    for (let partition = 0; partition < partitionCount; partition++) yield* residents.host(partition, () => true)
    return Schedules.of({
      ...ScheduleResidents.reading(store),
      call: (call) => residents.call(partitionOf("definition" in call ? idOf(call.definition) : call.id), call)
    })
  })

interface Parts {
  readonly attempts: TestAttempts
  readonly clock: TestClock.TestClock
  readonly runs: Runs["Type"]
  readonly cluster: Runs["Type"]
  readonly unkept: ReadonlyMap<RunId, RunRequest>
  readonly drain: Effect.Effect<void>
  readonly crash: Effect.Effect<void>
}

const makeKit = ({ attempts, clock, cluster, crash, drain, runs, unkept }: Parts): Kit => {
  const advance: Kit["advance"] = (duration) =>
    Effect.gen(function*() {
      const until = clock.unsafeCurrentTimeMillis() + Duration.toMillis(duration)
      yield* drain
      while (clock.unsafeCurrentTimeMillis() < until) {
        yield* clock.setTime(yield* nextWake(clock, until))
        yield* drain
      }
    })

  const shown = <P>(task: TaskOf<P>, run: Run): Effect.Effect<Enqueued<P>> =>
    // A payload that this version of the task cannot read is a mistake in the test.
    Effect.map(Effect.orDie(task.payloadOf(run)), (payload) => ({
      id: run.id,
      payload,
      state: run.state,
      attempt: run.attempt,
      priority: run.priority,
      scheduledAt: run.scheduledAt
    }))

  const enqueued: Kit["enqueued"] = (task) =>
    Effect.gen(function*() {
      const { name, namespace } = task
      const found = yield* listAll(runs, { task: name, namespace })
      const known = new Set(found.map(({ id }) => id))
      const gone = [...unkept.values()].filter((each) =>
        nameOf(each.task) === name && each.namespace === namespace && !known.has(each.id)
      )
      const all = yield* Effect.forEach([...found, ...gone.map(asSucceeded)], (run) => shown(task, run))
      return all.sort((a, b) => (a.id < b.id ? -1 : 1))
    })

  return {
    advance,
    drain,
    enqueued,
    assertEnqueued: (task, matcher) =>
      Effect.flatMap(enqueued(task), (all) => {
        const found = all.find(({ payload }) => matches(matcher, payload))
        return found === undefined
          ? new EnqueuedMismatch({ task: task.name, expected: "a matching run", found: all })
          : Effect.succeed(found)
      }),
    assertNotEnqueued: (task, matcher) =>
      Effect.flatMap(enqueued(task), (all) => {
        const found = all.filter(({ payload }) => matches(matcher, payload))
        return found.length > 0
          ? new EnqueuedMismatch({ task: task.name, expected: "no matching run", found })
          : Effect.void
      }),
    failNext: ({ name }, error) => attempts.arrange(name, { _tag: "end", exit: Exit.fail(error) }),
    dieNext: ({ name }, defect) => attempts.arrange(name, { _tag: "end", exit: Exit.die(defect) }),
    crashNext: ({ name }, when = "after") => attempts.arrange(name, { _tag: "crash", when }),
    crashWorker: crash,
    cluster
  }
}

const listAll = (
  runs: Runs["Type"],
  filter: { readonly task: string; readonly namespace: string }
): Effect.Effect<ReadonlyArray<Run>> =>
  Effect.gen(function*() {
    const all: Array<Run> = []
    for (;;) {
      const before = all.at(-1)?.id
      const page = yield* Effect.orDie(runs.list({ ...filter, ...before === undefined ? {} : { before }, limit: 500 }))
      if (page.length === 0) return all
      all.push(...page)
    }
  })

/** A run that left nothing behind: it has succeeded, or it would be kept. */
const asSucceeded = (request: RunRequest): Run => ({
  id: request.id,
  namespace: request.namespace,
  queue: request.queue,
  partition: 0,
  ...partsOf(request.task),
  state: "succeeded",
  priority: request.priority,
  createdAt: 0,
  scheduledAt: request.when._tag === "at" ? request.when.ms : 0,
  startedAt: null,
  finishedAt: null,
  attempt: 1,
  payload: request.payload,
  result: null,
  failure: null,
  worker: null,
  waitsFor: null
})
