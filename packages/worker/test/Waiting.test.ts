/** Attempts that wait at the worker beyond its slots. */
import { assert, describe, it } from "@effect/vitest"
import type { Outcome } from "@orrery/core/Run"
import { Effect } from "effect"
import { timedAwake } from "../../testing/src/standStill.js"
import * as FakeNode from "./FakeNode.js"
import { assignment, eventually } from "./FakeNode.js"
import { start } from "./startWorker.js"

const success: Outcome = { _tag: "success", result: "1" }

/** A worker whose attempts have been short, so that nodes may have more out than its slots; `long` ones end at `open`. */
const make = (nodes: ReadonlyArray<FakeNode.FakeNode>, slots: number) =>
  Effect.gen(function*() {
    const gate = yield* Effect.makeLatch(false)
    const started: Array<string> = []
    const worker = yield* start(
      {
        short: () => Effect.succeed(success),
        long: (payload) =>
          Effect.suspend(() => {
            started.push(payload)
            return Effect.as(gate.await, success)
          })
      },
      nodes,
      { slots }
    )
    for (const node of nodes) {
      node.waiting.push(...Array.from({ length: 100 }, () => assignment({ task: "short" })))
      node.pump()
    }
    yield* eventually(
      "an allowance",
      () => nodes.every((node) => node.state.ahead >= 10 && node.reports.length === 100)
    )
    for (const node of nodes) node.reports.length = 0
    return { worker, started, open: gate.open }
  })

const long = (count: number) => Array.from({ length: count }, (_, at) => assignment({ task: "long", payload: `${at}` }))
const count = (node: FakeNode.FakeNode, tag: Outcome["_tag"]) =>
  node.reports.filter((report) => report.outcome._tag === tag).length

describe.concurrent("Waiting attempts", { timeout: 30_000 }, () => {
  it.scopedLive("go back uncounted when the worker stops, at once", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const { open, started, worker } = yield* make([node], 2)
      node.waiting.push(...long(8))
      node.pump()
      yield* eventually("starts", () => started.length === 2)
      assert.strictEqual(node.out.size, 8)

      const stopping = yield* Effect.fork(worker.stop)
      yield* eventually("six back", () => count(node, "interrupted") === 6)
      yield* open
      yield* stopping.await

      assert.deepStrictEqual(started, ["0", "1"])
      assert.strictEqual(count(node, "success"), 2)
      assert.strictEqual(node.state.goodbyes, 1)
    }))

  it.scopedLive("go back when no slot comes free, and none is assigned ahead while attempts are long", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const { open, started } = yield* make([node], 2)
      node.waiting.push(...long(8))
      node.pump()
      yield* eventually("starts", () => started.length === 2)

      const [tookMs] = yield* timedAwake(eventually("six back", () => count(node, "interrupted") === 6))
      yield* eventually("no allowance", () => node.state.ahead === 0)
      node.waiting.push(...long(8))
      node.pump()
      const outAfter = node.out.size
      yield* open
      yield* eventually("all ended", () => count(node, "success") === 10)

      assert.isBelow(tookMs, 1_000)
      assert.strictEqual(outAfter, 2)
      assert.strictEqual(node.state.credit, 2)
    }))

  it.scopedLive("start in the slots of their node's share only", () =>
    Effect.gen(function*() {
      const nodes = [FakeNode.make("a"), FakeNode.make("b")]
      const { open, started } = yield* make(nodes, 4)
      const [busy, other] = nodes as [FakeNode.FakeNode, FakeNode.FakeNode]
      const share = busy.state.credit
      busy.waiting.push(...long(share + busy.state.ahead))
      busy.pump()
      yield* eventually("starts", () => started.length >= share)
      const startedOfBusy = started.length
      other.waiting.push(assignment({ task: "long", payload: "other" }))
      other.pump()
      yield* eventually("a start for the other", () => started.includes("other"))
      yield* open

      assert.strictEqual(startedOfBusy, share)
      assert.isAtMost(share, 3)
    }))

  it.scopedLive("are cancelled without being started", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const { started } = yield* make([node], 1)
      const runs = long(3)
      node.waiting.push(...runs)
      node.pump()
      yield* eventually("a start", () => started.length === 1)

      node.say({ _tag: "cancel", attempts: [runs[2]!] })
      yield* eventually("a report", () => node.reports.length > 0)

      assert.strictEqual(node.reports[0]!.runId, runs[2]!.runId)
      assert.strictEqual(node.reports[0]!.outcome._tag, "cancelled")
      assert.deepStrictEqual(started, ["0"])
    }))

  it.scopedLive("go back to whoever owns them next when their session is lost; what runs goes on", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const { open, started } = yield* make([node], 1)
      node.waiting.push(...long(4))
      node.pump()
      yield* eventually("a start", () => started.length === 1)

      node.cut()
      yield* eventually("a second session", () => node.state.attached === 2)
      yield* eventually("three back", () => count(node, "interrupted") === 3)
      yield* open
      yield* eventually("the running one", () => count(node, "success") === 1)

      assert.strictEqual(node.announced[0]?.held.length, 4)
      assert.deepStrictEqual(started, ["0"])
    }))

  it.scopedLive("count their start-to-close from their start", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const { open, started } = yield* make([node], 1)
      node.waiting.push(...long(1), assignment({ task: "long", payload: "timed", timeoutMs: 100 }))
      node.pump()
      yield* eventually("a start", () => started.length === 1)
      yield* Effect.sleep("80 millis")
      yield* open
      yield* eventually("both", () => node.reports.length === 2)

      assert.deepStrictEqual(node.reports.map((report) => report.outcome._tag), ["success", "success"])
      assert.deepStrictEqual(started, ["0", "timed"])
    }))
})

describe.concurrent("Reports", { timeout: 30_000 }, () => {
  it.scopedLive("gather where a message is dear, and lose nothing", () =>
    Effect.gen(function*() {
      const gatherMs = 2
      const node = FakeNode.make("far", { gatherMs })
      node.waiting.push(...Array.from({ length: 1_000 }, () => assignment()))
      yield* start({ work: () => Effect.delay(Effect.succeed(success), "1 millis") }, [node], { slots: 4 })

      const before = performance.now()
      yield* eventually("all reports", () => node.reports.length === 1_000)
      const tookMs = performance.now() - before

      assert.strictEqual(new Set(node.reports.map((report) => report.runId)).size, 1_000)
      assert.isBelow(node.state.calls, tookMs / gatherMs)
    }))

  it.scopedLive("do not wait when nothing else is under way", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("far", { gatherMs: 2_000 })
      yield* start({ work: () => Effect.succeed(success) }, [node])
      yield* eventually("credit", () => node.state.credit > 0)

      node.waiting.push(assignment())
      node.pump()
      const [tookMs] = yield* timedAwake(eventually("a report", () => node.reports.length === 1))

      assert.isBelow(tookMs, 1_000)
    }))
})
