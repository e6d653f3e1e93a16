import { assert, describe, it } from "@effect/vitest"
import * as ScheduleResidents from "@orrery/cluster/ScheduleResidents"
import * as SoloSchedules from "@orrery/cluster/SoloSchedules"
import { ClusterUnavailable, PayloadTooLarge, StoreUnavailable } from "@orrery/core/Errors"
import type { Run } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import { RunReader } from "@orrery/core/RunReader"
import { backfillLimit, parseKeys } from "@orrery/core/RunKeys"
import type { RunRequest } from "@orrery/core/RunRequest"
import type { RunState } from "@orrery/core/RunState"
import { noSameRuns, Runs } from "@orrery/core/Runs"
import * as MemoryScheduleStore from "@orrery/core/schedule/MemoryScheduleStore"
import { idOf, type ScheduleDefinition } from "@orrery/core/schedule/ScheduleDefinition"
import * as SchedulePolicy from "@orrery/core/schedule/SchedulePolicy"
import { Schedules } from "@orrery/core/schedule/Schedules"
import { partitionOf, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { checkAll } from "@orrery/testing/history/checkers"
import type { HistoryEvent } from "@orrery/testing/history/HistoryEvent"
import { sampleDefinition } from "@orrery/testing/scheduleStoreContract"
import { Clock, Context, Effect, Exit, Fiber, Layer, Scope, TestClock } from "effect"

const hour = 3_600_000

/** Queues that take runs, or refuse to, and runs that end when told. */
class World {
  readonly runs = new Map<RunId, { readonly request: RunRequest; readonly at: number; state: RunState }>()
  /** Requests for runs that were there already. */
  repeated = 0
  enqueueFails: (requests: ReadonlyArray<RunRequest>) => ClusterUnavailable | PayloadTooLarge | undefined = () =>
    undefined
  commitFails = () => false
  /** A bug put in on purpose: ticks are written without the runs they promise. */
  dropsPromises = false
  readonly cancelled: Array<RunId> = []

  readonly port = Runs.of({
    enqueueMany: (requests) =>
      Effect.flatMap(Clock.currentTimeMillis, (at) => {
        const problem = this.enqueueFails(requests)
        if (problem !== undefined) return Effect.fail(problem)
        for (const request of requests) {
          if (this.runs.has(request.id)) this.repeated += 1
          else this.runs.set(request.id, { request, at, state: "ready" })
        }
        return Effect.succeed(noSameRuns)
      }),
    cancel: (id) =>
      Effect.sync(() => {
        this.cancelled.push(id)
        this.end(id, "cancelled")
        return "cancelled" as const
      }),
    get: () => Effect.dieMessage("not used"),
    list: () => Effect.dieMessage("not used"),
    progress: () => Effect.dieMessage("not used"),
    explain: () => Effect.dieMessage("not used"),
    redrive: () => Effect.dieMessage("not used"),
    edit: () => Effect.dieMessage("not used"),
    deleteFinal: () => Effect.dieMessage("not used"),
    changes: () => Effect.dieMessage("not used"),
    queueChanges: () => Effect.dieMessage("not used"),
    awaitFinal: () => Effect.dieMessage("not used")
  })

  readonly reader = RunReader.of({
    find: (id) =>
      Effect.sync(() => {
        const run = this.runs.get(id)
        return run === undefined ? undefined : { id, state: run.state } as Run
      }),
    findFinal: () => Effect.succeed(undefined),
    list: () => Effect.succeed([])
  })

  end(id: RunId, state: RunState = "succeeded"): void {
    const run = this.runs.get(id)
    if (run !== undefined) run.state = state
  }

  /** Nominal hours of the runs, in the order of their making. */
  hours(): ReadonlyArray<number> {
    return [...this.runs.values()].map(({ request }) => request.when.ms / hour)
  }
}

/** A store that lives on, and a process on it that can be started again and again. */
const stage = Effect.gen(function*() {
  const world = new World()
  const clock = yield* Effect.clock
  const memory = yield* Effect.provideService(MemoryScheduleStore.make, RunReader, world.reader)
  let commits = 0
  const port = ScheduleStore.of({
    ...memory,
    commit: (batch) =>
      Effect.suspend(() => {
        commits += 1
        return world.commitFails()
          ? new StoreUnavailable({ operation: "commit", cause: new Error("down") })
          // As long as a database takes: meanwhile others come.
          : Effect.zipRight(Effect.yieldNow(), memory.commit(world.dropsPromises ? { ...batch, promised: [] } : batch))
      })
  })
  const store = { ...port, commits: () => commits }
  const start = Effect.gen(function*() {
    const scope = yield* Scope.fork(yield* Effect.scope, { _tag: "Sequential" } as never)
    const layer = SoloSchedules.layer({ monotonic: () => clock.unsafeCurrentTimeMillis() }).pipe(
      Layer.provide(Layer.mergeAll(Layer.succeed(ScheduleStore, port), Layer.succeed(Runs, world.port)))
    )
    const schedules = Context.get(yield* Layer.buildWithScope(layer, scope), Schedules)
    return { schedules, kill: Scope.close(scope, Exit.void) }
  })
  const residentsOf = (nodeId: string, scope: Scope.Scope) =>
    ScheduleResidents.make({
      nodeId,
      mayAct: () => true,
      hasOthers: () => true,
      monotonic: () => clock.unsafeCurrentTimeMillis()
    }).pipe(
      Scope.extend(scope),
      Effect.provideService(ScheduleStore, port),
      Effect.provideService(Runs, world.port)
    )
  return { world, store, start, residentsOf }
})

const definitionOf = (
  name: string,
  policy: Partial<SchedulePolicy.SchedulePolicy> = {},
  parts: Partial<ScheduleDefinition> = {}
): ScheduleDefinition => ({
  ...sampleDefinition(name),
  policy: { ...SchedulePolicy.standard, overlap: "allowAll", ...policy },
  ...parts
})

const range = (from: number, until: number) => Array.from({ length: until - from }, (_, index) => from + index)

describe("ScheduleActor", { timeout: 60_000 }, () => {
  it.scoped("makes each tick's run once and on time, over restarts of its owner", () =>
    Effect.gen(function*() {
      const { start, store, world } = yield* stage
      const definition = definitionOf("daily", { misfire: "fireAll" })
      let process = yield* start
      yield* process.schedules.call({ _tag: "create", definition })

      for (const hours of [2.2, 0.9, 3.5]) {
        yield* TestClock.adjust(hours * hour)
        yield* process.kill
        yield* TestClock.adjust(hour)
        process = yield* start
        yield* TestClock.adjust(1_000)
      }

      const passed = Math.floor((yield* Clock.currentTimeMillis) / hour)
      assert.deepStrictEqual(world.hours(), range(1, passed + 1))
      const ticks = yield* store.ticks(idOf(definition), 500)
      assert.deepStrictEqual(ticks.map(({ outcome }) => outcome), range(0, passed).map(() => "enqueued" as const))
      const late = [...world.runs.values()].map(({ at, request }) => at - request.when.ms)
      assert.isAtMost(late.filter((ms) => ms > 100).length, 5)
    }))

  it.scoped("notices that another owner has made a schedule meanwhile, though it had nothing to write itself", () =>
    Effect.gen(function*() {
      const { residentsOf, store, world } = yield* stage
      const spec = { sources: [{ _tag: "cron", expression: "* * * * *" }] } as const
      const definition = definitionOf("each minute", { misfire: "fireAll" }, { spec })
      const partition = partitionOf(idOf(definition))
      const here = yield* residentsOf("here", yield* Effect.scope)
      yield* here.host(partition, () => true)
      yield* TestClock.adjust("1 second")
      const elsewhere = yield* Scope.make()
      const other = yield* residentsOf("elsewhere", elsewhere)
      yield* Scope.extend(other.host(partition, () => true), elsewhere)
      yield* TestClock.adjust("1 second")
      yield* other.call(partition, { _tag: "create", definition })
      yield* Scope.close(elsewhere, Exit.void)

      yield* TestClock.adjust("31 seconds")
      const epochs = yield* store.epochs([partition])
      yield* TestClock.adjust("3 minutes")

      assert.strictEqual(epochs.get(partition), 3)
      assert.deepStrictEqual(world.hours(), [1 / 60, 2 / 60, 3 / 60])
    }))

  it.scoped("keeps its promises when queues, the database or its owner are away in between", () =>
    Effect.gen(function*() {
      const { start, store, world } = yield* stage
      const definition = definitionOf("kept", { misfire: "fireAll" })
      let process = yield* start
      yield* process.schedules.call({ _tag: "create", definition })

      world.enqueueFails = () => new ClusterUnavailable({ operation: "enqueue", reason: "nobody" })
      yield* TestClock.adjust(hour + 2_000)
      assert.strictEqual(world.runs.size, 0)
      yield* process.kill
      process = yield* start
      yield* TestClock.adjust(1_000)
      world.enqueueFails = () => undefined
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(world.hours(), [1])

      yield* TestClock.adjust(hour - 10_000)
      world.commitFails = () => true
      yield* TestClock.adjust(10_000)
      world.commitFails = () => false
      yield* TestClock.adjust(5_000)
      assert.deepStrictEqual(world.hours(), [1, 2])
      assert.deepStrictEqual(yield* store.loadPromised(partitionOf(idOf(definition)), undefined), [])
    }))

  it.scoped("marks the runs of a backfill, also those that an owner before has promised, and no others", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      yield* TestClock.adjust(10 * hour)
      const keys = { tenant: "acme", limits: [{ name: "own", key: "k", limit: 2 }] }
      const definition = definitionOf("filled", {}, {
        run: { ...sampleDefinition("filled").run, keys: JSON.stringify(keys) }
      })
      let process = yield* start
      yield* process.schedules.call({ _tag: "create", definition })

      world.enqueueFails = () => new ClusterUnavailable({ operation: "enqueue", reason: "nobody" })
      const range = { from: 2 * hour, until: 4 * hour, order: "oldest", perMinute: 6_000 } as const
      yield* process.schedules.call({ _tag: "backfill", id: idOf(definition), ...range })
      yield* TestClock.adjust(1_000)
      yield* process.kill
      world.enqueueFails = () => undefined
      process = yield* start
      yield* TestClock.adjust(hour)

      const told = [...world.runs.values()].map(({ request }) => JSON.parse(request.keys!) as unknown)
      const marked = { ...keys, limits: [...keys.limits, backfillLimit] }
      assert.deepStrictEqual(told, [marked, marked, marked, keys])
      assert.isUndefined([...world.runs.values()].find(({ request }) => parseKeys(request.keys!) instanceof Error))
    }))

  it.scoped("refuses a backfill of a task with as many limits as a run may have", () =>
    Effect.gen(function*() {
      const { start } = yield* stage
      const limits = ["a", "b", "c", "d"].map((name) => ({ name, key: "*", limit: 1 }))
      const definition = definitionOf("full", {}, {
        run: { ...sampleDefinition("full").run, keys: JSON.stringify({ limits }) }
      })
      const { schedules } = yield* start
      yield* schedules.call({ _tag: "create", definition })
      const range = { from: -4 * hour, until: -hour, order: "oldest", perMinute: 60 } as const

      const refused = yield* Effect.flip(schedules.call({ _tag: "backfill", id: idOf(definition), ...range }))

      assert.match(refused.message, /backfill must be of a task with at most 3 concurrency limits.* got 4/)
    }))

  it.scoped("hands a promise over again when it is not known to have arrived, and its queue makes one run of it", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      let process = yield* start
      yield* process.schedules.call({ _tag: "create", definition: definitionOf("twice") })

      // The tick is committed and its run is made; what would strike the promise out does not come through.
      world.commitFails = () => world.runs.size > 0
      yield* TestClock.adjust(hour + 1_000)
      yield* process.kill
      world.commitFails = () => false
      process = yield* start
      yield* TestClock.adjust(1_000)

      assert.strictEqual(world.repeated, 1)
      assert.deepStrictEqual(world.hours(), [1])
    }))

  it.scoped("gives way to another owner, and neither loses nor doubles a tick over it", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      const first = yield* start
      yield* first.schedules.call({ _tag: "create", definition: definitionOf("fenced") })

      yield* TestClock.adjust(hour)
      const second = yield* start
      yield* TestClock.adjust(hour)
      yield* second.kill
      yield* TestClock.adjust(hour + 1_000)

      assert.deepStrictEqual(world.hours(), [1, 2, 3])
    }))

  it.scoped("starts what waits when a run ends, and cancels what is in the way, as the policy says", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      const { schedules } = yield* start
      const buffering = definitionOf("buffering", { overlap: "bufferOne" })
      yield* schedules.call({ _tag: "create", definition: buffering })
      yield* TestClock.adjust(2 * hour + 500)
      assert.deepStrictEqual(world.hours(), [1])

      world.end([...world.runs.keys()][0]!)
      yield* TestClock.adjust(1_000)

      assert.strictEqual(world.runs.size, 2)
      yield* schedules.call({ _tag: "delete", id: idOf(buffering) })
      world.runs.clear()
      yield* schedules.call({ _tag: "create", definition: definitionOf("other", { overlap: "cancelOther" }) })
      yield* TestClock.adjust(2 * hour)
      assert.deepStrictEqual(world.cancelled.length, 1)
      assert.deepStrictEqual([...world.runs.values()].map(({ state }) => state), ["cancelled", "ready"])
    }))

  it.scoped("pauses when a run fails, where it is asked to, and says so", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      const { schedules } = yield* start
      const definition = definitionOf("failing", { pauseOnFailure: true })
      yield* schedules.call({ _tag: "create", definition })
      yield* TestClock.adjust(hour + 1_000)

      world.end([...world.runs.keys()][0]!, "failed")
      yield* TestClock.adjust(5 * hour)

      const { state } = yield* schedules.get(idOf(definition))
      assert.strictEqual(state.paused?.by, "pauseOnFailure")
      assert.strictEqual(world.runs.size, 1)
    }))

  it.scoped("records a run its queue refuses, and goes on with the others", () =>
    Effect.gen(function*() {
      const { start, store, world } = yield* stage
      const { schedules } = yield* start
      const [good, bad] = [
        definitionOf("good"),
        definitionOf("bad", {}, {
          run: { ...sampleDefinition("bad").run, task: "bad" }
        })
      ]
      yield* schedules.call({ _tag: "create", definition: good })
      yield* schedules.call({ _tag: "create", definition: bad })
      world.enqueueFails = (requests) =>
        requests.some(({ task }) => task === "bad")
          ? new PayloadTooLarge({ task: "bad", sizeBytes: 2, limitBytes: 1 })
          : undefined

      yield* TestClock.adjust(hour + 1_000)

      assert.deepStrictEqual(world.hours(), [1])
      assert.deepStrictEqual((yield* store.ticks(idOf(bad), 10)).map(({ reason }) => reason).sort(), [
        "refused",
        "tick"
      ])
    }))

  it.scoped("does what is asked on the revision the caller has seen, and refuses the rest", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      const { schedules } = yield* start
      const definition = definitionOf("asked")
      const id = idOf(definition)
      const made = yield* schedules.call({ _tag: "create", definition })
      const again = yield* schedules.call({ _tag: "create", definition })
      const taken = yield* Effect.flip(
        schedules.call({ _tag: "create", definition: definitionOf("asked", { graceMs: 1 }) })
      )
      const paused = yield* schedules.call({ _tag: "pause", id, by: "ann", why: "deploy", expected: 1 })
      const stale = yield* Effect.flip(schedules.call({ _tag: "resume", id, expected: 1 }))
      yield* TestClock.adjust(2.5 * hour)
      const updated = yield* schedules.call({
        _tag: "update",
        definition: definitionOf("asked", { graceMs: 1 }),
        expected: 2
      })
      const repeated = yield* schedules.call({
        _tag: "update",
        definition: definitionOf("asked", { graceMs: 1 }),
        expected: 2
      })
      yield* schedules.call({ _tag: "resume", id })
      yield* schedules.call({ _tag: "skipNext", id, count: 1 })
      yield* TestClock.adjust(2 * hour)
      const trigger = { _tag: "trigger", id, requestId: "once", at: 7 } as const
      yield* schedules.call(trigger)
      yield* schedules.call(trigger)
      yield* TestClock.adjust(1_000)
      const ticks = yield* schedules.ticks(id, 20)
      yield* schedules.call({ _tag: "delete", id })
      const gone = yield* Effect.flip(schedules.get(id))

      assert.deepStrictEqual(again, made)
      assert.deepStrictEqual([taken._tag, stale._tag, gone._tag], [
        "ScheduleExists",
        "RevisionConflict",
        "ScheduleNotFound"
      ])
      assert.deepStrictEqual([paused.state.revision, updated.state.revision, repeated.state.revision], [2, 3, 3])
      const seen = ticks.map(({ count, first, reason }) =>
        `${first / hour >= 1 ? first / hour : "now"} ${reason} ${count}`
      )
      assert.deepStrictEqual(seen, ["4 tick 1", "3 asked 1", "1 paused 2", "now trigger 1"])
      assert.strictEqual(world.runs.size, 2)
    }))

  it.scoped("keeps a newer declaration when an older release declares again", () =>
    Effect.gen(function*() {
      const { start } = yield* stage
      const { schedules } = yield* start
      const of = (version: number, graceMs: number) => definitionOf("declared", { graceMs }, { version })
      yield* schedules.call({ _tag: "declare", definition: of(1, 1) })
      yield* schedules.call({ _tag: "pause", id: idOf(of(1, 1)), by: "ann", why: "" })
      const newer = yield* schedules.call({ _tag: "declare", definition: of(2, 2) })

      const stale = yield* schedules.call({ _tag: "declare", definition: of(1, 1) })
      const same = yield* schedules.call({ _tag: "declare", definition: of(2, 2) })
      const differs = yield* Effect.flip(schedules.call({ _tag: "declare", definition: of(2, 3) }))

      assert.strictEqual(newer.definition.policy.graceMs, 2)
      assert.strictEqual(newer.state.paused?.by, "ann")
      assert.deepStrictEqual([stale, same], [newer, newer])
      assert.strictEqual(differs._tag, "InvalidRequest")
    }))

  it.scoped("writes operations that come together in one commit, and each follows the one before it", () =>
    Effect.gen(function*() {
      const { start, store } = yield* stage
      const { schedules } = yield* start
      const commits = store.commits()
      const named = (n: number) => definitionOf(`together-${n}`)
      const made = yield* Effect.forEach(
        range(0, 400),
        (n) => schedules.call({ _tag: "create", definition: named(n) }),
        {
          concurrency: 400
        }
      )
      assert.deepStrictEqual(made.map(({ definition }) => definition.name), range(0, 400).map((n) => `together-${n}`))
      assert.isBelow(store.commits() - commits, 60)
      assert.strictEqual((yield* store.list({ limit: 500 })).length, 400)

      const id = idOf(named(0))
      const pause = (why: string) => schedules.call({ _tag: "pause", id, by: "test", why })
      const asked = [pause("a"), pause("b"), schedules.call({ _tag: "delete", id }), Effect.flip(pause("c"))]
      const [, second, deleted, refused] = yield* Effect.all(asked, { concurrency: 4 })
      assert.deepInclude(second, { definition: named(0) })
      assert.deepNestedInclude(deleted, { "state.paused.why": "b" })
      assert.deepInclude(refused, { _tag: "ScheduleNotFound" })
    }))

  it.scoped("has a checker that notices a promise that was never written", () =>
    Effect.gen(function*() {
      const { start, store, world } = yield* stage
      const definition = definitionOf("dropped", { misfire: "fireAll" })
      const seen: Array<ReadonlyArray<string>> = []
      for (const isDropping of [false, true]) {
        const process = yield* start
        yield* process.schedules.call({ _tag: "create", definition })
        yield* TestClock.adjust(hour - 2_000)
        world.dropsPromises = isDropping
        // The owner ends between the commit of a tick and the hand-over of its run.
        world.enqueueFails = () => new ClusterUnavailable({ operation: "enqueue", reason: "test" })
        yield* TestClock.adjust(3_000)
        yield* process.kill
        world.dropsPromises = false
        world.enqueueFails = () => undefined
        const next = yield* start
        yield* TestClock.adjust(hour)
        yield* next.kill

        const now = yield* Clock.currentTimeMillis
        const at = { at: 0, by: "test", schedule: idOf(definition) }
        const ticks = yield* store.ticks(idOf(definition), 500)
        const history: ReadonlyArray<HistoryEvent> = [
          ...[...world.runs.keys()].map((run) => ({ _tag: "final", ...at, run, state: "succeeded", rows: 1 }) as const),
          {
            _tag: "targets",
            ...at,
            nominals: range(1, Math.floor(now / hour) + 1).map((n) => n * hour),
            runs: [...world.runs.keys()]
          },
          ...ticks.map(({ runId, ...tick }) => ({ _tag: "ticked", ...at, ...tick, at: 0, run: runId }) as const)
        ]
        seen.push([...new Set(checkAll(history).map(({ checker }) => checker))])
      }
      assert.deepStrictEqual(seen, [[], ["ticks"]])
    }))

  it.scoped("tells those that wait for a write when the process ends", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      const process = yield* start
      world.commitFails = () => true
      const asked = yield* Effect.fork(
        Effect.forEach(range(0, 10), (n) =>
          Effect.flip(process.schedules.call({ _tag: "create", definition: definitionOf(`left-${n}`) })), {
          concurrency: 10
        })
      )
      yield* TestClock.adjust(1_000)
      yield* process.kill
      yield* TestClock.adjust(hour)
      for (const error of yield* Fiber.join(asked)) {
        assert.strictEqual(error._tag, "ClusterUnavailable")
      }
    }))

  it.scoped("makes the ticks of many schedules of one instant", () =>
    Effect.gen(function*() {
      const { start, world } = yield* stage
      const { schedules } = yield* start
      yield* Effect.forEach(range(0, 50), (n) =>
        schedules.call({ _tag: "create", definition: definitionOf(`of-${n}`) }), {
        concurrency: 50,
        discard: true
      })

      yield* TestClock.adjust(hour + 1_000)

      assert.strictEqual(world.runs.size, 50)
      assert.isTrue([...world.runs.values()].every(({ at, request }) =>
        at - request.when.ms < 1_000
      ))
    }))
})
