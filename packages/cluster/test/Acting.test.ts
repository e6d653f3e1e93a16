/** What an owner does while its node may not act, or is short of memory. Over the memory store. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Overloaded } from "@orrery/core/Errors"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { defaultPolicy, type RunRequest } from "@orrery/core/RunRequest"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Residents from "../src/Residents.js"
import { stepDownMs } from "../src/SelfWatch.js"

const name = { namespace: "default", queue: "q", partition: 0 }

const request = (fields: Partial<RunRequest> = {}): RunRequest => ({
  id: unsafeMakeRunId(1_700_000_000_000),
  namespace: "default",
  queue: "q",
  task: "t",
  payload: "1",
  priority: 5,
  when: { _tag: "delay", ms: 0 },
  policy: JSON.stringify(defaultPolicy),
  keys: null,
  resend: false,
  ...fields
})

const setUp = (options: Partial<Residents.ResidentsOptions>) =>
  Effect.gen(function*() {
    const residents = yield* Residents.make({
      nodeId: "node",
      windowRunsMax: 100,
      windowBytesMax: 1e6,
      mayTakeOver: () => true,
      ...options
    })
    yield* residents.host(name, () => true)
    const actor = yield* residents.await(name, 5_000)
    assert(actor)
    const assigned: Array<Assignment> = []
    residents.hub.attach({ workerId: "w", tasks: ["t"], credit: 10 }, (message) => {
      if (message._tag === "assign") assigned.push(...message.assignments)
    }, () => undefined)
    return { actor, assigned, residents }
  })

const store = Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer())

describe("an owner", () => {
  it.scopedLive("starts nothing while others may own, and goes on by itself afterwards", () =>
    Effect.gen(function*() {
      let mayAct = false
      const { actor, assigned } = yield* setUp({ mayAct: () => mayAct })

      // Still durable: the fence decides whether it counts.
      assert.deepStrictEqual(yield* actor.enqueue([request()]), ["stored"])
      yield* Effect.sleep("20 millis")
      assert.strictEqual(assigned.length, 0)

      mayAct = true
      yield* Effect.sleep("5 millis").pipe(
        Effect.repeat({ until: () => assigned.length === 1 }),
        Effect.timeout("5 seconds")
      )
    }).pipe(Effect.provide(store)))

  it.scopedLive("is not made under an epoch that was given out before", () =>
    Effect.gen(function*() {
      const residents = yield* Residents.make({
        nodeId: "node",
        windowRunsMax: 100,
        windowBytesMax: 1e6,
        mayTakeOver: () => true,
        takingOver: () => () => false
      })
      yield* residents.host(name, () => true)

      assert.isUndefined(yield* residents.await(name, 50))
    }).pipe(Effect.provide(store)))

  it.scopedLive("refuses new runs while memory is short, and never says that one sent again was not stored", () =>
    Effect.gen(function*() {
      const overloaded = new Overloaded({ what: "bytes of heap", limit: 90, actual: 95, retryAfterMs: 500 })
      let overload: Overloaded | undefined = undefined
      const { actor, assigned } = yield* setUp({ overload: () => overload })
      yield* actor.enqueue([request()])
      yield* Effect.sleep("5 millis").pipe(Effect.repeat({ until: () => assigned.length === 1 }))
      overload = overloaded

      assert.deepStrictEqual(yield* actor.enqueue([request()]), [overloaded])
      assert.strictEqual(yield* Effect.flip(actor.enqueue([request({ resend: true })])), "not-owner")
      // Work in progress goes on.
      const { attempt, lease, partitionId, runId } = assigned[0]!
      const outcome = { _tag: "success", result: "1" } as const
      assert.deepStrictEqual(yield* actor.report([{ attempt, lease, partitionId, runId, outcome }]), ["accepted"])
    }).pipe(Effect.provide(store)))

  it.effect("steps down before the server gives its locks away, and not at a refresh that is late", () =>
    Effect.gen(function*() {
      const cluster = yield* ClusterConfig.ClusterConfig
      for (const lockRefreshMs of [250, 1_000, 2_000]) {
        for (const idleSessionTimeoutMs of [lockRefreshMs + 500, lockRefreshMs + 1_500]) {
          const at = stepDownMs({ ...cluster, lockRefreshMs, idleSessionTimeoutMs })
          assert.isBelow(at, idleSessionTimeoutMs)
          assert.isAbove(at, lockRefreshMs)
        }
      }
      assert.strictEqual(stepDownMs(cluster), 3_000)
    }).pipe(Effect.provide(ClusterConfig.layer())))
})
