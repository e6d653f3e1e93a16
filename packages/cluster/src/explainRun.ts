/** Why a run is where it is, answered by the actor that owns it. */
import { explain, type Explained } from "@orrery/core/explain"
import { explainUnowned, type Explanation, spentOf } from "@orrery/core/Explanation"
import { ClusterUnavailable, type RunNotFound, type StoreUnavailable } from "@orrery/core/Errors"
import { isOrdered, lineOf } from "@orrery/core/RunKeys"
import type { Run } from "@orrery/core/Run"
import type { RunReader } from "@orrery/core/RunReader"
import { Effect } from "effect"
import { type NotOwner, notOwner } from "./ActorHost.js"
import * as OwnedCalls from "./OwnedCalls.js"
import type { QueueActor } from "./QueueActor.js"
import type { WorkerHub } from "./WorkerHub.js"

/** Runs of its line before one that is not in memory are counted up to here. */
const countedMax = 10_000

export const explainRun = (
  reader: RunReader["Type"],
  actor: QueueActor,
  hub: WorkerHub,
  id: Run["id"]
): Effect.Effect<Explanation, NotOwner | RunNotFound | ClusterUnavailable> =>
  Effect.gen(function*() {
    const run = yield* OwnedCalls.find(reader, id)
    const unowned = explainUnowned(run)
    if (unowned !== undefined) return unowned
    const now = actor.host.clock.now()
    const found = explain(actor.machine, id, now, hub) ?? (yield* beyond(actor, id, now, hub))
    if (!actor.isOpen) return yield* Effect.fail(notOwner)
    if (found !== undefined) return explanationOf(run, found, now)
    // It has ended meanwhile, or was never here.
    const after = yield* OwnedCalls.find(reader, id)
    return explainUnowned(after) ?? (yield* Effect.fail(notOwner))
  })

/** The store has it, and that is all. */
const beyond = (
  actor: QueueActor,
  id: Run["id"],
  now: number,
  hub: WorkerHub
): Effect.Effect<Explained | undefined, ClusterUnavailable> =>
  Effect.gen(function*() {
    const { partitionId } = actor
    const { store } = actor.host
    const run = yield* store.findRun(partitionId, id)
    if (run === undefined) return undefined
    const line = lineOf(run.task, run.keys)
    const isInLine = run.state === "ready" || isOrdered(line) || run.scheduledAt <= now
    const place = { partitionId, line, orderKey: run.orderKey, seq: run.seq, limit: countedMax }
    const runs = isInLine ? yield* store.countBefore(place) : 0
    // It may have come to memory while the store was asked.
    return explain(actor.machine, id, now, hub)
      ?? explain(actor.machine, { run, before: { runs, isAtLeast: runs === countedMax } }, now, hub)
  }).pipe(
    Effect.mapError((error: StoreUnavailable) =>
      new ClusterUnavailable({ operation: "explain", reason: error.message })
    )
  )

const explanationOf = (stored: Run, { holdsUp, reasons: [reason, ...also] }: Explained, now: number): Explanation => {
  // Its row shows it some milliseconds later.
  const run: Run = reason._tag === "Running"
    ? { ...stored, state: "running", startedAt: reason.since, attempt: reason.attempt }
    : stored
  return {
    runId: run.id,
    state: run.state,
    reason,
    also,
    ...holdsUp === undefined ? {} : { holdsUp },
    spent: spentOf(run, now),
    at: now
  }
}
