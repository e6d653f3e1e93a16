/** Notes of attempts on their way to a scripted node. */
import { assert, describe, it } from "@effect/vitest"
import type { Outcome } from "@orrery/core/Run"
import { Effect, Option } from "effect"
import * as FakeNode from "./FakeNode.js"
import { assignment, eventually } from "./FakeNode.js"
import { start } from "./startWorker.js"

const done: Outcome = { _tag: "success", result: "1" }

describe.concurrent("a worker", { timeout: 30_000 }, () => {
  it.scopedLive("tells the last of an attempt before its outcome, though a node refuses it for a while", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      let refusals = 3
      const order: Array<string> = []
      node.state.noteAnswer = ({ progress }) => {
        if (refusals-- > 0) return undefined
        order.push(`note ${progress}`)
        return "accepted"
      }
      node.state.answer = () => {
        order.push("outcome")
        return "accepted"
      }
      node.waiting.push(assignment())
      yield* start({
        work: (_, attempt) =>
          Effect.forEach(Array.from({ length: 1_000 }, (_, n) => n / 10), attempt.progress, { discard: true }).pipe(
            Effect.zipRight(attempt.log("ended")),
            Effect.as(done)
          )
      }, [node])

      yield* eventually("the outcome", () => order.includes("outcome"))

      assert.strictEqual(order.at(-1), "outcome")
      assert.strictEqual(order.at(-2), "note 99.9")
      assert.isAtMost(order.length, 4)
    }))

  it.scopedLive("tells the next owner what was under way when the session with the one before ended", () =>
    Effect.gen(function*() {
      const [a, b] = [FakeNode.make("a"), FakeNode.make("b")]
      let isSaved = false
      a.waiting.push(assignment())
      yield* start({
        work: (_, attempt) =>
          Effect.sync(() => void (a.state.isSilent = true)).pipe(
            Effect.zipRight(attempt.notes.saveCheckpoint("\"half\"")),
            Effect.zipRight(Effect.sync(() => void (isSaved = true))),
            Effect.as(done)
          )
      }, [a, b])
      yield* eventually("silence", () => a.state.isSilent && b.state.attached === 1)
      yield* Effect.sleep("50 millis")

      a.state.isDown = true
      a.cut()
      b.say({ _tag: "owned", partitionId: 1, expects: 1, epoch: 2 })

      yield* eventually("the checkpoint", () => isSaved)
      yield* eventually("the outcome", () => b.reports.length === 1)
      assert.deepStrictEqual(b.notes.map(({ checkpoint }) => checkpoint), ["\"half\""])
    }))

  it.scopedLive("answers for a checkpoint when it is durable, and gives it to the next attempt", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const gate = Effect.unsafeMakeLatch(false)
      let isDurable = false
      const seen: Array<string> = []
      node.state.noteAnswer = ({ checkpoint, runId }) => {
        if (!isDurable) return undefined
        node.checkpoints.set(runId, checkpoint!)
        return "accepted"
      }
      const first = assignment({ lease: 1 })
      node.waiting.push(first)
      yield* start({
        work: (_, attempt) =>
          Effect.gen(function*() {
            const before = yield* attempt.notes.loadCheckpoint
            seen.push(`begins with ${Option.getOrElse(before, () => "nothing")}`)
            yield* attempt.notes.saveCheckpoint("\"half\"")
            seen.push("saved")
            yield* gate.await
            return done
          })
      }, [node])

      yield* eventually("a refused checkpoint", () => seen.length === 1 && node.state.calls === 0)
      yield* Effect.sleep("120 millis")
      assert.deepStrictEqual(seen, ["begins with nothing"])
      isDurable = true
      yield* eventually("saved", () => seen.length === 2)
      node.waiting.push(assignment({ runId: first.runId, attempt: 2, lease: 2 }))
      node.out.clear()
      node.pump()
      yield* eventually("the next", () => seen.length >= 3)

      assert.strictEqual(seen[2], "begins with \"half\"")
      yield* gate.open
    }))

  it.scopedLive("interrupts an attempt whose notes are stale, and does not report it", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      node.state.noteAnswer = () => "stale"
      let isInterrupted = false
      node.waiting.push(assignment())
      yield* start({
        work: (_, attempt) =>
          attempt.progress(50).pipe(
            Effect.zipRight(Effect.never),
            Effect.onInterrupt(() => Effect.sync(() => void (isInterrupted = true)))
          )
      }, [node])

      yield* eventually("the interruption", () => isInterrupted)
      yield* eventually("the word that it is not held", () => node.announced.length === 1)
      assert.deepStrictEqual(node.announced, [{ partitionId: 1, held: [] }])
      assert.strictEqual(node.reports.length, 0)
    }))

  it.scopedLive("begins with the checkpoint that is kept, also where its owner has to hear first that it is held", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const first = assignment()
      node.checkpoints.set(first.runId, "\"half\"")
      node.state.counts = false
      node.waiting.push(first)
      const seen: Array<Option.Option<string>> = []
      yield* start({
        work: (_, attempt) =>
          Effect.map(attempt.notes.loadCheckpoint, (found) => {
            seen.push(found)
            return done
          })
      }, [node])

      yield* eventually("an announcement", () => node.announced.some(({ held }) => held.length === 1))
      node.state.counts = true
      yield* eventually("the outcome", () => node.reports.length === 1)

      assert.deepStrictEqual(seen, [Option.some("\"half\"")])
    }))

  it.scopedLive("sends what many attempts tell together, once a second", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      node.waiting.push(...Array.from({ length: 20 }, () => assignment()))
      yield* start(
        {
          work: (_, attempt) =>
            attempt.progress(5).pipe(
              Effect.zipRight(attempt.log("x")),
              Effect.delay("10 millis"),
              Effect.forever
            )
        },
        [node],
        { slots: 20 }
      )
      yield* eventually("three rounds", () => node.notes.length >= 60)

      const perRun = new Map<string, number>()
      for (const { runId } of node.notes) perRun.set(runId, (perRun.get(runId) ?? 0) + 1)
      assert.strictEqual(perRun.size, 20)
      assert.isAtMost(Math.max(...perRun.values()), 4)
    }))
})
