/** What a node that stops does, in which order, and that it does it when its program is interrupted, as at SIGTERM. */
import { RunnerAddress } from "@effect/cluster"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import * as Drain from "../src/Drain.js"
import { LockStorage } from "../src/LockStorage.js"
import { NodeIdentity } from "../src/NodeIdentity.js"
import type { QueueActor } from "../src/QueueActor.js"
import { Reach } from "../src/Reach.js"
import { Residents } from "../src/Residents.js"

const own = { address: "127.0.0.1:1", runner: { address: RunnerAddress.make("127.0.0.1", 1) }, healthy: true } as never

/** It has a shard until it is told to leave, and an actor until the others know that it has left. */
const setUp = (hasOthers: boolean, leaveToo = false) => {
  const steps: Array<string> = []
  let held = 1
  let actors = [{} as QueueActor]
  const step = (what: string, then: () => void = () => undefined) =>
    Effect.sync(() => {
      steps.push(what)
      Effect.runFork(Effect.delay(Effect.sync(then), "30 millis"))
    })
  const services = Layer.mergeAll(
    Layer.succeed(
      LockStorage,
      {
        runners: () => [own],
        hasOthers: () => hasOthers && !(leaveToo && held === 0),
        heldCount: () => held,
        leave: () => Effect.runSync(step("leaves", () => void (held = 0))),
        setHealth: (_: unknown, healthy: boolean) => step(`is ${healthy ? "healthy" : "gone"}, holds ${held}`)
      } as unknown as LockStorage["Type"]
    ),
    Layer.succeed(
      Residents,
      { hub: { close: () => steps.push("closes") }, list: () => actors } as unknown as Residents["Type"]
    ),
    Layer.succeed(NodeIdentity, { runnerAddress: "127.0.0.1:1" } as NodeIdentity["Type"]),
    Layer.succeed(
      Reach,
      { membersChanged: step("tells", () => void (actors = leaveToo ? actors : [])) } as unknown as Reach["Type"]
    )
  )
  return { layer: Layer.provide(Drain.layer, services), steps, left: () => actors.length }
}

const interrupted = <A, E>(layer: Layer.Layer<A, E>) =>
  Effect.gen(function*() {
    const isUp = yield* Effect.makeLatch(false)
    const program = yield* Effect.fork(
      Effect.scoped(Effect.zipRight(Layer.build(layer), Effect.zipRight(isUp.open, Effect.never)))
    )
    yield* isUp.await
    yield* Fiber.interrupt(program)
  })

it.live("a node that is interrupted lets go of its shards, says so, and stays until its queues have other owners", () =>
  Effect.gen(function*() {
    const { layer, left, steps } = setUp(true)

    yield* interrupted(layer)

    assert.deepStrictEqual(steps, ["closes", "leaves", "is gone, holds 0", "tells"])
    assert.strictEqual(left(), 0)
  }))

it.live("a node whose company leaves as well does not wait for heirs", () =>
  Effect.gen(function*() {
    const { layer, left, steps } = setUp(true, true)
    const began = performance.now()

    yield* interrupted(layer)

    assert.strictEqual(steps.at(-1), "tells")
    assert.strictEqual(left(), 1)
    // They are waited for 3 s where there is somebody to come.
    assert.isBelow(performance.now() - began, 2_500)
  }))

it.live("a node that is alone just stops", () =>
  Effect.gen(function*() {
    const { layer, steps } = setUp(false)

    yield* interrupted(layer)

    assert.deepStrictEqual(steps, ["closes"])
  }))
