/** When a node that joins gets queues; the others say what the test has them say. */
import { RunnerAddress } from "@effect/cluster"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, TestClock } from "effect"
import * as Admission from "../src/Admission.js"
import { type KnownRunner, LockStorage } from "../src/LockStorage.js"
import { NodeIdentity } from "../src/NodeIdentity.js"
import { Reach, type Word } from "../src/Reach.js"

const own = "127.0.0.1:1"

/** A node that has been recorded as unhealthy. Answers whether it was admitted, and how often it said so to the others. */
const join = (words: () => ReadonlyArray<Word>) =>
  Effect.gen(function*() {
    let isAdmitted = false
    let told = 0
    const services = Layer.mergeAll(
      Layer.succeed(
        LockStorage,
        {
          runners: () => [
            {
              address: own,
              runner: { address: RunnerAddress.make("127.0.0.1", 1) },
              healthy: isAdmitted
            } as KnownRunner
          ],
          isLeaving: () => false,
          hasOthers: () => false,
          setHealth: (_: unknown, healthy: boolean) => Effect.sync(() => void (isAdmitted = healthy))
        } as unknown as LockStorage["Type"]
      ),
      Layer.succeed(NodeIdentity, { nodeId: "self", runnerAddress: own } as unknown as NodeIdentity["Type"]),
      Layer.succeed(
        Reach,
        {
          others: () => [],
          ask: () => Effect.sync(words),
          membersChanged: Effect.sync(() => void told++)
        } as unknown as Reach["Type"]
      )
    )
    yield* Effect.forkScoped(Layer.build(Admission.layer.pipe(Layer.provide(services))))
    yield* TestClock.adjust("1 second")
    return { isAdmitted: () => isAdmitted, told: () => told }
  })

describe("Admission", () => {
  it.scoped("takes one yes, whatever the others say", () =>
    Effect.gen(function*() {
      const { isAdmitted, told } = yield* join(() => ["silent", "does not reach", "reaches"])

      assert.isTrue(isAdmitted())
      assert.strictEqual(told(), 1)
    }))

  it.scoped("does not wait for nodes that are gone, nor where there are none", () =>
    Effect.gen(function*() {
      const [first, second] = [yield* join(() => ["gone", "gone"]), yield* join(() => [])]

      assert.isTrue(first.isAdmitted())
      assert.isTrue(second.isAdmitted())
    }))

  it.scoped("keeps a node out for as long as nobody reaches it", () =>
    Effect.gen(function*() {
      let words: ReadonlyArray<Word> = ["gone", "silent", "does not reach"]
      const { isAdmitted, told } = yield* join(() => words)
      yield* TestClock.adjust("10 seconds")
      const whileCutOff = [isAdmitted(), told()]

      words = ["gone", "reaches", "does not reach"]
      yield* TestClock.adjust("1 second")

      assert.deepStrictEqual(whileCutOff, [false, 0])
      assert.isTrue(isAdmitted())
    }))
})
