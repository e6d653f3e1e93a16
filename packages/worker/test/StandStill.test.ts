/** What a worker reads after its process stood still. These tests hold its thread themselves, so they have a file of their own. */
import { assert, describe, it } from "@effect/vitest"
import { numbersPerEpoch } from "@orrery/core/Numbers"
import type { Outcome } from "@orrery/core/Run"
import { Effect } from "effect"
import { eventually } from "./FakeNode.js"
import * as FakeNode from "./FakeNode.js"
import { start } from "./startWorker.js"

const success: Outcome = { _tag: "success", result: "1" }

const standStill = (): void => {
  const until = performance.now() + 1_200
  while (performance.now() < until);
}
const assignedBy = (epoch: number) => FakeNode.assignment({ lease: epoch * numbersPerEpoch })

describe("a worker that stood still", () => {
  it.scopedLive("begins what it reads then once its node has answered", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      let started = 0
      yield* start({ work: () => Effect.sync(() => (started++, success)) }, [node])
      yield* eventually("a session", () => node.state.credit > 0)

      const before = yield* Effect.sync(() => {
        standStill()
        node.say({ _tag: "assign", assignments: [assignedBy(1)] })
        return { started, heartbeats: node.state.heartbeats }
      })
      yield* eventually("a report", () => node.reports.length === 1)

      assert.strictEqual(before.started, 0)
      // Asked at once, and not at the next of its 2.5 s.
      assert.isAbove(node.state.heartbeats, before.heartbeats)
      assert.deepStrictEqual(node.reports.map(({ outcome }) => outcome), [success])
    }))

  it.scopedLive("begins nothing of an owner that has been replaced meanwhile", () =>
    Effect.gen(function*() {
      const replaced = FakeNode.make("replaced")
      const owner = FakeNode.make("owner")
      let started = 0
      owner.state.givenUp = (held) => held
      owner.state.announcing = Effect.unsafeMakeLatch(false)
      yield* start({ work: () => Effect.sync(() => (started++, success)) }, [replaced, owner])
      yield* eventually("sessions", () => replaced.state.credit > 0 && owner.state.credit > 0)

      const before = yield* Effect.sync(() => {
        standStill()
        replaced.say({ _tag: "assign", assignments: [assignedBy(1)] })
        owner.say({ _tag: "owned", partitionId: 1, expects: 1, epoch: 2 })
        return replaced.state.heartbeats
      })
      yield* eventually("the one that was replaced has answered, and the owner is asked", () =>
        replaced.state.heartbeats > before && owner.announced.length > 0)
      yield* owner.state.announcing.open
      owner.say({ _tag: "assign", assignments: [assignedBy(2)] })
      yield* eventually("a report", () =>
        owner.reports.length === 1)

      assert.strictEqual(started, 1)
      assert.deepStrictEqual(replaced.reports, [])
    }))
})
