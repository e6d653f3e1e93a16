/**
 * A handler has ended its run in a transaction of its own, beside the owner. Whatever the owner does with the attempt then,
 * it does not run it again. Over the memory store: what the transaction does to the tables is done to them here.
 */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Journal } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import type { Outcome } from "@orrery/core/Run"
import { RunReader } from "@orrery/core/RunReader"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { attach, failure, reportOf, request, startNode, until } from "./actorRig.js"

const started = Effect.gen(function*() {
  const { actor, residents } = yield* startNode()
  const { assigned, session } = attach(residents, 1)
  // One run at a time: its start is written down before it is told, and its permit must come back.
  const keys = JSON.stringify({ limits: [{ name: "k", key: "k", limit: 1 }] })
  yield* actor.enqueue([request({ keys })])
  yield* until(() => assigned.length === 1)
  const assignment = assigned[0]!
  const journal = yield* Journal
  yield* journal.commit({
    partitionId: actor.partitionId,
    epoch: actor.epoch,
    inserts: [],
    updates: [],
    finishes: [{
      id: assignment.runId,
      state: "succeeded",
      attempt: 1,
      crashes: 0,
      worker: "w",
      startedAt: 0,
      result: "2",
      failure: null,
      keep: true
    }]
  })
  const done = Effect.gen(function*() {
    yield* until(() => actor.isIdle)
    yield* Effect.sleep("20 millis")
    assert.strictEqual(assigned.length, 1)
    assert.strictEqual(actor.machine.runningCount, 0)
    const reader = yield* RunReader
    assert.deepInclude(yield* reader.find(assignment.runId), { state: "succeeded", result: "2", attempt: 1 })
  })
  return { actor, assignment, done, session }
})

const report = (outcome: Outcome) =>
  Effect.gen(function*() {
    const { assignment, done, session } = yield* started
    assert.deepStrictEqual(yield* session.report([reportOf(assignment, outcome)]), ["accepted"])
    yield* done
  })

const store = Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer({ lostWorkerGraceMs: 50 }))

describe("a run that its handler has ended in a transaction", () => {
  it.scopedLive("is not tried again after a failure", () => Effect.provide(report(failure), store))
  it.scopedLive("is not put back after an interruption", () => Effect.provide(report({ _tag: "interrupted" }), store))
  it.scopedLive("is over with its success", () => Effect.provide(report({ _tag: "success", result: "2" }), store))
  it.scopedLive("is not run again when its worker was lost before it could tell", () =>
    Effect.gen(function*() {
      const { actor, done, session } = yield* started
      let ended = false
      session.lost()
      actor.watch(actor.machine["entries"].keys().next().value!, () => {
        ended = true
      })
      yield* until(() => ended)
      yield* done
    }).pipe(Effect.provide(store)))
})
