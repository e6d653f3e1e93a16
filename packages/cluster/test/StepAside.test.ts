import { assert, it } from "@effect/vitest"
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Context, Effect, Fiber, Layer, TestClock } from "effect"
import { LockStorage } from "../src/LockStorage.js"
import { Reach } from "../src/Reach.js"
import { SelfWatch } from "../src/SelfWatch.js"
import * as StepAside from "../src/StepAside.js"

/** A node that may act, with a peer that is ready. Answers whether its clients are sent on, asked now. */
const node = Effect.gen(function*() {
  const state = { mayAct: true, othersReady: true }
  let asked = 0
  const leaving = yield* Effect.makeLatch(false)
  const services = Layer.mergeAll(
    ClusterConfig.layer(),
    Layer.succeed(
      LockStorage,
      { leaving: leaving.await, confirmedMsAgo: () => (state.mayAct ? 0 : Infinity) } as unknown as LockStorage["Type"]
    ),
    Layer.succeed(SelfWatch, { mayAct: () => state.mayAct } as unknown as SelfWatch["Type"]),
    Layer.succeed(
      Reach,
      {
        othersReady: Effect.sync(() => {
          asked++
          return state.othersReady
        })
      } as unknown as Reach["Type"]
    )
  )
  const built = yield* Layer.build(StepAside.layer.pipe(Layer.provide(services)))
  const { betterElsewhere } = Context.get(built, StepAside.StepAside)
  const sendsOn = Effect.gen(function*() {
    const fiber = yield* Effect.fork(betterElsewhere)
    yield* TestClock.adjust("4 seconds")
    const isOver = (yield* Fiber.poll(fiber))._tag === "Some"
    yield* Fiber.interrupt(fiber)
    return isOver
  })
  return { state, leaving, sendsOn, asked: () => asked }
})

it.scoped("keeps its clients while it may act, and asks nobody", () =>
  Effect.gen(function*() {
    const { asked, sendsOn } = yield* node

    assert.isFalse(yield* sendsOn)
    assert.strictEqual(asked(), 0)
  }))

it.scoped("sends them on when it may not act and another is ready, and keeps them once it may again", () =>
  Effect.gen(function*() {
    const { sendsOn, state } = yield* node
    state.mayAct = false
    const whileCutOff = yield* sendsOn

    state.mayAct = true
    yield* TestClock.adjust("1 second")

    assert.isTrue(whileCutOff)
    assert.isFalse(yield* sendsOn)
  }))

it.scoped("keeps them when nobody is ready", () =>
  Effect.gen(function*() {
    const { asked, sendsOn, state } = yield* node
    state.mayAct = false
    state.othersReady = false

    assert.isFalse(yield* sendsOn)
    assert.isAbove(asked(), 0)
  }))

it.scoped("sends them on when it is told to leave", () =>
  Effect.gen(function*() {
    const { leaving, sendsOn } = yield* node
    yield* leaving.open

    assert.isTrue(yield* sendsOn)
  }))
