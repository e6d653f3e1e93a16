/** What a node believes of where partitions are, while others leave: suddenly, or after they have said so. */
import { assert, describe, it } from "@effect/vitest"
import { partitionKey } from "@orrery/core/PartitionStore"
import { Effect, Fiber, TestClock } from "effect"
import { type DirectoryEntry, NodeDirectory } from "../src/NodeDirectory.js"
import * as Owners from "../src/Owners.js"

const node = (nodeId: string): DirectoryEntry => ({
  nodeId,
  dataAddress: `127.0.0.1:${nodeId}`,
  runnerAddress: `runner-${nodeId}`
})
const one = node("1")
const two = node("2")
const name = { namespace: "default", queue: "q", partition: 0 }
const key = partitionKey(name)

const setUp = Effect.gen(function*() {
  let live: ReadonlyArray<DirectoryEntry> = [one, two]
  const callbacks = new Set<() => void>()
  const directory = {
    live: () => live,
    onChange: (callback: () => void) => {
      callbacks.add(callback)
      return () => callbacks.delete(callback)
    }
  } as unknown as NodeDirectory["Type"]
  const owners = yield* Owners.make.pipe(Effect.provideService(NodeDirectory, directory))
  const become = (next: ReadonlyArray<DirectoryEntry>): void => {
    live = next
    for (const callback of callbacks) callback()
  }
  /** Whether somebody who waits for that node has given up. */
  const givenUp = (address: string) =>
    Effect.gen(function*() {
      const waiting = yield* Effect.fork(owners.leftOut(address))
      yield* Effect.yieldNow()
      const exit = yield* Fiber.poll(waiting)
      yield* Fiber.interrupt(waiting)
      return exit._tag === "Some"
    })
  return { become, givenUp, owners }
})

describe("owners of partitions", () => {
  it.scoped("are forgotten, and waited for no more, when their node is left out", () =>
    Effect.gen(function*() {
      const { become, givenUp, owners } = yield* setUp
      owners.learn(key, two.dataAddress)
      const waiting = yield* Effect.fork(owners.leftOut(two.dataAddress))
      yield* Effect.yieldNow()

      become([one])

      assert.strictEqual((yield* Effect.flip(Fiber.join(waiting)))._tag, "ClusterUnavailable")
      assert.isUndefined(owners.find(key))
      become([one, two])
      assert.isFalse(yield* givenUp(two.dataAddress))
    }))

  it.scoped("are asked on while their node departs, until a call there comes to nothing", () =>
    Effect.gen(function*() {
      const { become, givenUp, owners } = yield* setUp

      assert.isTrue(owners.departs(two.nodeId, [name]))
      become([one])

      assert.strictEqual(owners.find(key), two.dataAddress)
      assert.isTrue(owners.isDeparting(two.dataAddress))
      assert.isFalse(yield* givenUp(two.dataAddress))
      owners.failed(two.dataAddress)
      assert.isUndefined(owners.find(key))
      assert.isFalse(owners.isDeparting(two.dataAddress))
      assert.isTrue(yield* givenUp(two.dataAddress))
    }))

  it.scoped("are not asked for longer than a drain takes", () =>
    Effect.gen(function*() {
      const { become, givenUp, owners } = yield* setUp
      owners.departs(two.nodeId, [name])
      become([one])
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(owners.find(key), two.dataAddress)

      yield* TestClock.adjust("1 seconds")

      assert.isUndefined(owners.find(key))
      assert.isTrue(yield* givenUp(two.dataAddress))
    }))

  it.scoped("are not taken for departing when their node has come back, or was never known", () =>
    Effect.gen(function*() {
      const { become, owners } = yield* setUp
      assert.isFalse(owners.departs("3", [name]))
      assert.isUndefined(owners.find(key))
      owners.departs(two.nodeId, [name])
      become([one])

      become([one, two])

      assert.isFalse(owners.isDeparting(two.dataAddress))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(owners.find(key), two.dataAddress)
    }))

  it.scoped("stay where they are when a call to a node that does not depart fails", () =>
    Effect.gen(function*() {
      const { givenUp, owners } = yield* setUp
      owners.learn(key, two.dataAddress)

      owners.failed(two.dataAddress)

      assert.strictEqual(owners.find(key), two.dataAddress)
      assert.isFalse(yield* givenUp(two.dataAddress))
    }))
})
