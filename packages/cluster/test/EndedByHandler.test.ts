/**
 * A handler has ended its run in a transaction of its own, beside the owner. Whatever the owner does with the attempt then,
 * it does not run it again. Over the memory store: what the transaction does to the tables is done to them here.
 */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Journal } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import type { Outcome } from "@orrery/core/Run"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { RunReader } from "@orrery/core/RunReader"
import { defaultPolicy } from "@orrery/core/RunRequest"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Residents from "../src/Residents.js"

const name = { namespace: "default", queue: "q", partition: 0 }

const until = (holds: () => boolean) =>
  Effect.sync(holds).pipe(
    Effect.tap((held) => held ? Effect.void : Effect.sleep("1 millis")),
    Effect.repeat({ until: (held) => held }),
    Effect.timeout("10 seconds")
  )

const started = Effect.gen(function*() {
  const residents = yield* Residents.make({
    nodeId: "node",
    windowRunsMax: 100,
    windowBytesMax: 1e6,
    mayTakeOver: () => true
  })
  yield* residents.host(name, () => true)
  const actor = yield* residents.await(name, 5_000)
  assert(actor)
  const assigned: Array<Assignment> = []
  const session = residents.hub.attach({ workerId: "w", tasks: ["t"], credit: 1 }, (message) => {
    if (message._tag === "assign") assigned.push(...message.assignments)
  }, () => undefined)
  assert(session !== "full")
  yield* actor.enqueue([{
    id: unsafeMakeRunId(1_700_000_000_000),
    namespace: "default",
    queue: "q",
    task: "t",
    payload: "1",
    priority: 5,
    when: { _tag: "delay", ms: 0 },
    policy: JSON.stringify(defaultPolicy),
    // One run at a time: its start is written down before it is told, and its permit must come back.
    keys: JSON.stringify({ limits: [{ name: "k", key: "k", limit: 1 }] }),
    resend: false
  }])
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
    const { assignment: { attempt, lease, partitionId, runId }, done, session } = yield* started
    assert.deepStrictEqual(yield* session.report([{ attempt, lease, partitionId, runId, outcome }]), ["accepted"])
    yield* done
  })

const store = Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer({ lostWorkerGraceMs: 50 }))
const failure: Outcome = { _tag: "failure", failure: { kind: "defect", tag: "E", message: "" }, retryable: true }

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
