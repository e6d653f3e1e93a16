/** What an owner does while its node may not act, or is short of memory. Over the memory store. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Overloaded } from "@orrery/core/Errors"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { ResidentsOptions } from "../src/Residents.js"
import { stepDownMs } from "../src/SelfWatch.js"
import { attach, makeResidents, name, reportOf, request, startNode, success, until } from "./actorRig.js"

const setUp = (options: Partial<ResidentsOptions>) =>
  Effect.map(startNode(options), (node) => ({ ...node, ...attach(node.residents) }))

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
      yield* until(() => assigned.length === 1)
    }).pipe(Effect.provide(store)))

  it.scopedLive("is not made under an epoch that was given out before", () =>
    Effect.gen(function*() {
      const residents = yield* makeResidents({ takingOver: () => () => false })
      yield* residents.host(name, () => true)

      assert.isUndefined(yield* residents.await(name, 50))
    }).pipe(Effect.provide(store)))

  it.scopedLive("refuses new runs while memory is short, and never says that one sent again was not stored", () =>
    Effect.gen(function*() {
      const overloaded = new Overloaded({ what: "bytes of heap", limit: 90, actual: 95, retryAfterMs: 500 })
      let overload: Overloaded | undefined = undefined
      const { actor, assigned } = yield* setUp({ overload: () => overload })
      yield* actor.enqueue([request()])
      yield* until(() => assigned.length === 1)
      overload = overloaded

      assert.deepStrictEqual(yield* actor.enqueue([request()]), [overloaded])
      assert.strictEqual(yield* Effect.flip(actor.enqueue([request({ resend: true })])), "not-owner")
      // Work in progress goes on.
      assert.deepStrictEqual(yield* actor.report([reportOf(assigned[0]!, success)]), ["accepted"])
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
