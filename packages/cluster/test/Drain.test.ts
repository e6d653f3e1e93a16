/** What a node that stops does, in which order, and that it does it when its program is interrupted, as at SIGTERM. */
import { RunnerAddress } from "@effect/cluster"
import { assert, it } from "@effect/vitest"
import type { PartitionName } from "@orrery/core/PartitionStore"
import { Effect, Fiber, Layer } from "effect"
import * as Drain from "../src/Drain.js"
import { LockStorage } from "../src/LockStorage.js"
import { NodeIdentity } from "../src/NodeIdentity.js"
import type { QueueActor } from "../src/QueueActor.js"
import { Reach } from "../src/Reach.js"
import { Residents } from "../src/Residents.js"

const own = { address: "127.0.0.1:1", runner: { address: RunnerAddress.make("127.0.0.1", 1) }, healthy: true } as never

/** It has a shard until it is told to leave, and an actor until the others know that it has left. */
const setUp = (hasOthers: boolean) => {
  const steps: Array<string> = []
  let held = 1
  const actor = (queue: string, isOpen: boolean) =>
    ({ name: { namespace: "default", queue, partition: 0 }, isOpen, isIdle: false }) as QueueActor
  let actors = [actor("served", true), actor("ended", false)]
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
        hasOthers: () => hasOthers,
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
      {
        departs: (partitions: ReadonlyArray<PartitionName>) =>
          step(`departs with ${partitions.map(({ queue }) => queue).join()}`),
        membersChanged: step("tells", () => void (actors = []))
      } as unknown as Reach["Type"]
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

    assert.deepStrictEqual(steps, ["closes", "departs with served", "leaves", "is gone, holds 0", "tells"])
    assert.strictEqual(left(), 0)
  }))

it.live("a node that is alone just stops", () =>
  Effect.gen(function*() {
    const { layer, steps } = setUp(false)

    yield* interrupted(layer)

    assert.deepStrictEqual(steps, ["closes"])
  }))
