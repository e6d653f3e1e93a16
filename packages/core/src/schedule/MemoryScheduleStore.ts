/** Schedules in memory, beside the runs of a `MemoryStore`: same fence, same answers as PostgreSQL. Gone with the process. */
import { Clock, Effect, Layer } from "effect"
import { Fenced } from "../Errors.js"
import type { RunId } from "../RunId.js"
import { RunReader } from "../RunReader.js"
import { isFinal } from "../RunState.js"
import { idOf, type Schedule, type Tick } from "./ScheduleDefinition.js"
import { loadLimitMax, partitionOf, type Promised, ScheduleStore } from "./ScheduleStore.js"

/** Ticks kept of one schedule; the oldest go first. */
const ticksMax = 1_000

const byId = (a: Schedule, b: Schedule) => (idOf(a.definition) < idOf(b.definition) ? -1 : 1)

export const make = Effect.gen(function*() {
  const reader = yield* RunReader
  const epochs = new Map<number, number>()
  const schedules = new Map<string, Schedule>()
  const ticks = new Map<string, Array<Tick>>()
  const promised = new Map<RunId, Promised>()

  const sorted = (of: (schedule: Schedule, id: string) => boolean) =>
    [...schedules].filter(([id, schedule]) => of(schedule, id)).map(([, schedule]) => schedule).sort(byId)

  const isOver = (runId: RunId) =>
    Effect.map(reader.find(runId), (run) => {
      if (run === undefined) return promised.has(runId) ? undefined : { runId, isFailure: false }
      return isFinal(run.state) ? { runId, isFailure: run.state === "failed" } : undefined
    })

  return ScheduleStore.of({
    takeOver: (partition) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const epoch = (epochs.get(partition) ?? 0) + 1
        epochs.set(partition, epoch)
        return { epoch, now }
      }),
    epochs: (partitions) =>
      Effect.sync(() => new Map([...epochs].filter(([partition]) => partitions.includes(partition)))),
    load: (partition, after) =>
      Effect.sync(() => sorted((_, id) => partitionOf(id) === partition && id > after).slice(0, loadLimitMax)),
    loadPromised: (partition, after) =>
      Effect.sync(() =>
        [...promised.values()]
          .filter(({ runId, scheduleId }) =>
            partitionOf(scheduleId) === partition && (after === undefined || runId > after)
          )
          .sort((a, b) => (a.runId < b.runId ? -1 : 1))
          .slice(0, loadLimitMax)
      ),
    commit: (batch) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const { epoch, partition } = batch
        if (epochs.get(partition) !== epoch) return new Fenced({ partitionId: partition, epoch })
        for (const schedule of [...batch.saved, ...batch.stepped]) schedules.set(idOf(schedule.definition), schedule)
        for (const id of batch.deleted) {
          schedules.delete(id)
          ticks.delete(id)
        }
        for (const { scheduleId, ...tick } of batch.ticks) {
          const kept = ticks.get(scheduleId) ?? []
          ticks.set(scheduleId, kept)
          if (!kept.some((each) => each.first === tick.first && each.reason === tick.reason)) kept.push(tick)
          if (kept.length > ticksMax) kept.shift()
        }
        for (const each of batch.promised) promised.set(each.runId, each)
        for (const id of batch.kept) promised.delete(id)
        return Effect.succeed(now)
      }),
    ended: (runs) => Effect.map(Effect.forEach(runs, isOver), (all) => all.filter((each) => each !== undefined)),
    now: Clock.currentTimeMillis,
    find: (id) => Effect.sync(() => schedules.get(id)),
    list: ({ after, limit, namespace }) =>
      Effect.sync(() =>
        sorted(({ definition }, id) =>
          (namespace === undefined || definition.namespace === namespace) && (after === undefined || id > after)
        ).slice(0, limit)
      ),
    ticks: (id, limit) =>
      Effect.sync(() => [...ticks.get(id) ?? []].sort((a, b) => b.first - a.first || b.at - a.at).slice(0, limit)),
    pruneTicks: (before) =>
      Effect.sync(() => {
        let gone = 0
        for (const [id, kept] of ticks) {
          const rest = kept.filter(({ at }) => at >= before)
          gone += kept.length - rest.length
          ticks.set(id, rest)
        }
        return gone
      })
  })
})

export const layer: Layer.Layer<ScheduleStore, never, RunReader> = Layer.effect(ScheduleStore, make)
