import { assert, layer } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import type { PartitionStore } from "@orrery/core/PartitionStore"
import type { RunId } from "@orrery/core/RunId"
import * as NextFire from "@orrery/core/schedule/NextFire"
import {
  defaultRunPolicy,
  idOf,
  type Schedule,
  type ScheduleDefinition
} from "@orrery/core/schedule/ScheduleDefinition"
import * as ScheduleMachine from "@orrery/core/schedule/ScheduleMachine"
import * as SchedulePolicy from "@orrery/core/schedule/SchedulePolicy"
import { partitionOf, type ScheduleBatch, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import * as scheduleRunId from "@orrery/core/schedule/scheduleRunId"
import { Effect, Either, type Layer } from "effect"
import { batchOf, finishOf, sampleRun, takePartition } from "./storeSamples.js"

const hour = 3_600_000
const t0 = 1_770_000_000_000

export const sampleDefinition = (name: string): ScheduleDefinition => ({
  namespace: "default",
  name,
  spec: { sources: [{ _tag: "cron", expression: "0 * * * *" }] },
  policy: SchedulePolicy.standard,
  run: {
    queue: "reports",
    task: "report",
    payload: "{}",
    priority: 5,
    policy: defaultRunPolicy,
    keys: null
  },
  version: null
})

export const sampleSchedule = (name: string, parts: Partial<Schedule> = {}): Schedule => {
  const definition = sampleDefinition(name)
  const fires = Either.getOrThrow(NextFire.compile(definition.spec))
  const options = { id: idOf(definition), policy: definition.policy, jitterMs: 0, maxFires: null }
  return { definition, state: ScheduleMachine.make(options, fires, t0), createdAt: t0, latenessMs: null, ...parts }
}

const nothing = { saved: [], stepped: [], deleted: [], ticks: [], promised: [], kept: [] }

/** What every `ScheduleStore` must do, beside the `Journal` of the same store. */
export const scheduleStoreContract = (
  name: string,
  store: Layer.Layer<ScheduleStore | Journal | PartitionStore, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`ScheduleStore contract: ${name}`, (it) => {
    let names = 0
    /** A schedule of its own partition, saved. */
    const begin = Effect.gen(function*() {
      const schedules = yield* ScheduleStore
      const schedule = sampleSchedule(`contract-${names++}`)
      const id = idOf(schedule.definition)
      const partition = partitionOf(id)
      const { epoch } = yield* schedules.takeOver(partition, "owner")
      const commit = (parts: Partial<ScheduleBatch>) => schedules.commit({ ...nothing, partition, epoch, ...parts })
      yield* commit({ saved: [schedule] })
      return { schedules, schedule, id, partition, epoch, commit }
    })
    const tick = (scheduleId: string, at: number, runId: RunId | null) => ({
      ...{ scheduleId, first: at, last: at, count: 1, runId, at: at + 5 },
      ...(runId === null
        ? { outcome: "missed", reason: "late" } as const
        : { outcome: "enqueued", reason: "tick" } as const)
    })

    it.effect("gives back what was saved, changed and deleted", () =>
      Effect.gen(function*() {
        const { commit, id, partition, schedule, schedules } = yield* begin
        const changed = { ...schedule, latenessMs: 12.5, state: { ...schedule.state, fires: 3, nextAt: null } }

        const found = yield* schedules.find(id)
        yield* commit({ saved: [changed], ticks: [tick(id, t0, null)] })
        const stepped = { ...changed, latenessMs: null, state: { ...changed.state, fires: 4 } }
        yield* commit({ stepped: [stepped] })
        const loaded = yield* schedules.load(partition, "")
        const listed = yield* schedules.list({ namespace: "default", limit: 500 })
        yield* commit({ deleted: [id] })

        assert.deepStrictEqual(found, schedule)
        assert.deepStrictEqual(loaded.filter((each) => idOf(each.definition) === id), [stepped])
        assert.deepStrictEqual(listed.filter((each) => idOf(each.definition) === id), [stepped])
        assert.isUndefined(yield* schedules.find(id))
        assert.deepStrictEqual(yield* schedules.ticks(id, 10), [])
        assert.deepStrictEqual(yield* schedules.list({ namespace: "another", limit: 500 }), [])
      }))

    it.effect("refuses an owner that another has replaced, and writes nothing of it", () =>
      Effect.gen(function*() {
        const { commit, epoch, id, partition, schedule, schedules } = yield* begin
        const later = yield* schedules.takeOver(partition, "another")
        const runId = scheduleRunId.ofTick(id, t0)

        const error = yield* Effect.flip(commit({
          saved: [sampleSchedule("fenced-off")],
          stepped: [{ ...schedule, latenessMs: 1 }],
          deleted: [id],
          ticks: [tick(id, t0, runId)],
          promised: [{ runId, scheduleId: id, nominal: t0, at: t0 }]
        }))

        assert.isAbove(later.epoch, epoch)
        assert.strictEqual(error._tag, "Fenced")
        assert.deepStrictEqual(yield* schedules.find(id), schedule)
        assert.isUndefined(yield* schedules.find("default|fenced-off"))
        assert.deepStrictEqual(yield* schedules.ticks(id, 10), [])
        assert.isFalse((yield* schedules.loadPromised(partition, undefined)).some((each) => each.runId === runId))
      }))

    it.effect("tells the present epochs of partitions", () =>
      Effect.gen(function*() {
        const { partition, schedules } = yield* begin
        const { epoch } = yield* schedules.takeOver(partition, "another")

        const epochs = yield* schedules.epochs([partition, 2 ** 31 - 1])

        // Other tests may have taken it over since.
        assert.deepStrictEqual([...epochs.keys()], [partition])
        assert.isAtLeast(epochs.get(partition)!, epoch)
      }))

    it.effect("writes a batch that is sent twice once", () =>
      Effect.gen(function*() {
        const { commit, id, partition, schedules } = yield* begin
        const runId = scheduleRunId.ofTick(id, t0)
        const backfilled = {
          ...{ runId: scheduleRunId.ofTick(id, t0 - hour), scheduleId: id, nominal: t0 - hour, at: t0 },
          isBackfill: true
        } as const
        const batch = {
          ticks: [tick(id, t0, runId), tick(id, t0 + hour, null)],
          promised: [{ runId, scheduleId: id, nominal: t0, at: t0 + 1 }, backfilled]
        }

        yield* commit(batch)
        const now = yield* commit(batch)

        assert.deepStrictEqual((yield* schedules.ticks(id, 10)).map(({ first, outcome }) => [first, outcome]), [
          [t0 + hour, "missed"],
          [t0, "enqueued"]
        ])
        const promised = (yield* schedules.loadPromised(partition, undefined)).filter((each) => each.scheduleId === id)
        const byId = (a: { readonly runId: string }, b: { readonly runId: string }) => a.runId < b.runId ? -1 : 1
        assert.deepStrictEqual([...promised].sort(byId), [...batch.promised].sort(byId))
        assert.isBelow(Math.abs(now - (yield* schedules.now)), 60_000)
        yield* commit({ kept: [runId] })
        assert.isFalse((yield* schedules.loadPromised(partition, undefined)).some((each) => each.runId === runId))
      }))

    it.effect("tells which runs are over: those that ended, and those nobody knows any more", () =>
      Effect.gen(function*() {
        const { commit, id, schedules } = yield* begin
        const journal = yield* Journal
        const owner = yield* takePartition()
        const [waiting, failed, done] = yield* Effect.forEach([1, 2, 3], (seq) => sampleRun({ seq }))
        const promised = scheduleRunId.ofTick(id, t0)
        const unknown = scheduleRunId.ofTick(id, t0 + hour)
        yield* journal.commit(batchOf(owner, { inserts: [waiting!, failed!, done!] }))
        yield* journal.commit(batchOf(owner, { finishes: [finishOf(failed!, { state: "failed" }), finishOf(done!)] }))
        yield* commit({ promised: [{ runId: promised, scheduleId: id, nominal: t0, at: t0 }] })

        const ended = yield* schedules.ended([waiting!.id, failed!.id, done!.id, promised, unknown])

        const byRun = new Map(ended.map(({ isFailure, runId }) => [runId, isFailure]))
        assert.deepStrictEqual(
          byRun,
          new Map([[failed!.id, true], [done!.id, false], [unknown, false]])
        )
      }))

    it.effect("forgets ticks that are old", () =>
      Effect.gen(function*() {
        const { commit, id, schedules } = yield* begin
        yield* commit({ ticks: [tick(id, 1_000, null), tick(id, t0, null)] })

        const gone = yield* schedules.pruneTicks(10_000)

        assert.isAtLeast(gone, 1)
        assert.deepStrictEqual((yield* schedules.ticks(id, 10)).map(({ first }) => first), [t0])
      }))
  })
