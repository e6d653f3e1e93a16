/** Attempts that take several slots of their worker. */
import { assert, describe, it } from "@effect/vitest"
import { Attempt } from "@orrery/core/Handlers"
import type { Outcome } from "@orrery/core/Run"
import { Effect, Random } from "effect"
import * as FakeNode from "./FakeNode.js"
import { assignment, eventually } from "./FakeNode.js"
import { start } from "./startWorker.js"

const success: Outcome = { _tag: "success", result: "1" }

/** A worker whose handlers take some milliseconds, or until `open`, and count their slots. */
const make = (nodes: ReadonlyArray<FakeNode.FakeNode>, slots: number, sizes: ReadonlyMap<string, number>) =>
  Effect.gen(function*() {
    const gate = yield* Effect.makeLatch(false)
    const begun: Array<string> = []
    let inUse = 0
    let most = 0
    const counted = (wait: Effect.Effect<void>) =>
      Effect.flatMap(Attempt, ({ runId }) => {
        const size = sizes.get(runId) ?? 1
        return Effect.acquireUseRelease(
          Effect.sync(() => {
            begun.push(runId)
            inUse += size
            most = Math.max(most, inUse)
          }),
          () => Effect.as(wait, success),
          () => Effect.sync(() => void (inUse -= size))
        )
      })
    yield* start(
      {
        brief: () => counted(Effect.flatMap(Random.nextIntBetween(1, 12), (ms) => Effect.sleep(ms))),
        held: () => counted(gate.await)
      },
      nodes,
      { slots }
    )
    return { begun, most: () => most, open: gate.open }
  })

const sized = (task: string, slots: number) => assignment({ task, ...slots === 1 ? {} : { slots } })

describe.concurrent("Attempts that take several slots", { timeout: 30_000 }, () => {
  it.scopedLive("never run beyond them, whatever nodes assign; what has no room goes back uncounted", () =>
    Effect.gen(function*() {
      const nodes = [FakeNode.make("a"), FakeNode.make("b")]
      const sizes = new Map<string, number>()
      const made = Array.from({ length: 240 }, (_, at) => sized("brief", [1, 1, 1, 2, 4][at % 5]!))
      for (const each of made) sizes.set(each.runId, each.slots ?? 1)
      const { most } = yield* make(nodes, 4, sizes)
      // These nodes count attempts and not slots: they assign more than there is room for.
      made.forEach((each, at) => nodes[at % 2]!.waiting.push(each))
      for (const node of nodes) node.pump()
      yield* eventually("all answered", () => nodes.every((node) => node.reports.length === 120))

      assert.isAtMost(most(), 4)
      const tags = new Set(nodes.flatMap((node) => node.reports.map(({ outcome }) => outcome._tag)))
      assert.isTrue(tags.has("success"))
      assert.isTrue([...tags].every((tag) => tag === "success" || tag === "interrupted"))
    }))

  it.scopedLive("hold up those behind them, so that these do not starve them", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const { begun, open } = yield* make([node], 4, new Map())
      yield* eventually("credit", () => node.state.credit === 4)
      const [first, large, small] = [sized("held", 2), sized("held", 3), sized("held", 1)]
      node.say({ _tag: "assign", assignments: [first, large, small] })
      yield* eventually("a start", () => begun.length === 1)
      yield* open
      yield* eventually("all", () => begun.length === 3)

      assert.deepStrictEqual(begun, [first.runId, large.runId, small.runId])
    }))
})
