/** The reconciler over real stores: 0 whatever the actor does, and more when a run is forgotten. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { defaultPolicy, type RunRequest } from "@orrery/core/RunRequest"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import * as PgRunTally from "@orrery/store-pg/PgRunTally"
import * as TestStore from "@orrery/testing/TestStore"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer, Metric } from "effect"
import * as Reconciler from "../src/Reconciler.js"
import * as Residents from "../src/Residents.js"

const name = { namespace: "default", queue: "q", partition: 0 }

const request = (n: number): RunRequest => ({
  id: unsafeMakeRunId(1_700_000_000_000),
  namespace: "default",
  queue: "q",
  task: `t${n % 3}`,
  payload: "1",
  priority: n % 10,
  when: { _tag: "delay", ms: n % 4 === 0 ? 3_600_000 : n % 4 === 1 ? 50 : 0 },
  policy: JSON.stringify(defaultPolicy),
  keys: null,
  resend: false
})

const services = PgRunTally.layer.pipe(Layer.provideMerge(TestStore.layer), Layer.merge(ClusterConfig.layer()))

/** A partition in the store, and who reconciles it. */
const start = Effect.gen(function*() {
  const residents = yield* Residents.make({
    nodeId: "node",
    windowRunsMax: 10,
    windowBytesMax: 1e6,
    mayTakeOver: () => true
  })
  const reconciler = yield* Layer.build(
    Reconciler.layer.pipe(Layer.provide(Layer.succeed(Residents.Residents, residents)))
  ).pipe(Effect.map((built) => Context.get(built, Reconciler.Reconciler)))
  yield* residents.host(name, () => true)
  return { residents, reconciler, actor: (yield* residents.await(name, 5_000))! }
})

it.scopedLive("gives out again what a worker has let go of unnoticed, when it has run for a minute", () =>
  Effect.gen(function*() {
    const { actor, reconciler, residents } = yield* start
    const assigned: Array<Assignment> = []
    const held = new Map<string, Assignment>()
    const session = residents.hub.attach({ workerId: "w", tasks: ["t0", "t1"], credit: 2 }, (message) => {
      if (message._tag === "assign") {
        assigned.push(...message.assignments)
        for (const each of message.assignments) held.set(each.runId, each)
      }
      if (message._tag === "owned" && message.expects > 0 && session !== "full") {
        session.announce(message.partitionId, [...held.values()])
      }
    }, () => undefined)
    assert(session !== "full")
    yield* actor.enqueue([request(3), request(6), request(7)])
    yield* Effect.sleep("5 millis").pipe(Effect.repeat({ until: () => assigned.length === 2 && actor.isWritten }))
    const [lost, kept] = assigned
    held.delete(lost!.runId)

    // For so long it may be on its way.
    yield* Effect.repeatN(reconciler.round, 24)
    const whileYoung = residents.hub.forgotten
    for (const entry of actor.machine.leases.of("w")) entry.startedAt! -= 61_000
    yield* Effect.sleep("5 millis").pipe(
      Effect.zipRight(reconciler.round),
      Effect.repeat({ until: () => residents.hub.forgotten > 0 && actor.isWritten }),
      Effect.timeout("10 seconds")
    )
    const heldAfter = actor.machine.heldBy("w")
    held.delete(kept!.runId)
    yield* session.report([{ ...kept!, outcome: { _tag: "success", result: "1" } }])
    yield* Effect.sleep("5 millis").pipe(Effect.repeat({ until: () => assigned.length === 4 }))
    yield* reconciler.round

    assert.strictEqual(whileYoung, 0)
    // No more than the worker has room for: what was taken back is counted once.
    assert.strictEqual(heldAfter, 2)
    const again = assigned.slice(2).find(({ runId }) => runId === lost!.runId)
    assert.strictEqual(again?.attempt, 1)
    assert.isAbove(again!.lease, lost!.lease)
    assert.strictEqual((yield* Metric.value(Reconciler.forgotten)).count, 1)
  }).pipe(Effect.provide(services)))

it.scopedLive("accounts for every run of a partition whose windows are small, and finds one that was forgotten", () =>
  Effect.gen(function*() {
    const { actor, reconciler, residents } = yield* start
    const assigned: Array<Assignment> = []
    const session = residents.hub.attach({ workerId: "w", tasks: ["t0", "t1"], credit: 4 }, (message) => {
      if (message._tag === "assign") assigned.push(...message.assignments)
    }, () => undefined)
    assert(session !== "full")

    // Three lines, one of which nobody executes, and timers; all of them longer than a window.
    for (let batch = 0; batch < 10; batch++) {
      yield* actor.enqueue(Array.from({ length: 30 }, (_, n) => request(batch * 30 + n)))
      assert.strictEqual(yield* reconciler.round, 0)
    }
    for (let ended = 0; ended < 100;) {
      const reports = assigned.splice(0).map(({ attempt, lease, partitionId, runId }) => ({
        attempt,
        lease,
        partitionId,
        runId,
        outcome: ended++ % 5 === 0 ? { _tag: "interrupted" } as const : { _tag: "success", result: "1" } as const
      }))
      yield* session.report(reports)
      assert.strictEqual(yield* reconciler.round, 0)
      yield* Effect.sleep("1 millis")
    }
    yield* Effect.sleep("5 millis").pipe(Effect.repeat({ until: () => actor.isWritten }))
    assert.strictEqual(yield* reconciler.round, 0)

    // A run that the owner has never heard of, and one that is gone behind its back.
    const client = yield* TestStore.ownClient
    yield* TestStore.query(
      client,
      `insert into orrery.runs (id, partition_id, priority, state, seq, created_at, scheduled_at, order_key, task, payload, policy)
       values (gen_random_uuid(), $1, 0, 2, 1, 0, 0, 0, 'forgotten', '1', '')`,
      [actor.partitionId]
    )
    yield* actor.enqueue([request(2)])
    const found = yield* Effect.sleep("5 millis").pipe(
      Effect.zipRight(reconciler.round),
      Effect.repeat({ until: (count) => count > 0 }),
      Effect.timeout("10 seconds")
    )
    assert.strictEqual(found, 1)
    assert.strictEqual((yield* Metric.value(Reconciler.gauge)).value, 1)
    assert.strictEqual(reconciler.unaccounted(), 1)
  }).pipe(Effect.provide(services)))
