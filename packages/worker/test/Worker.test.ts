import { assert, describe, it } from "@effect/vitest"
import { Attempt } from "@orrery/core/Handlers"
import { numbersPerEpoch } from "@orrery/core/Numbers"
import type { Outcome } from "@orrery/core/Run"
import { type NodeLink, NodeLinks } from "@orrery/core/WorkerProtocol"
import { Deferred, Effect, Layer, Random } from "effect"
import { standStill, timedAwake } from "../../testing/src/standStill.js"
import { aheadMin } from "../src/Ahead.js"
import * as FakeNode from "./FakeNode.js"
import { assignment, eventually } from "./FakeNode.js"
import { start } from "./startWorker.js"

const success = (result: string): Outcome => ({ _tag: "success", result })

/** A list of links the test changes. */
const changing = (first: ReadonlyArray<NodeLink>) => {
  let links = first
  const watchers = new Set<(links: ReadonlyArray<NodeLink>) => void>()
  const layer = Layer.succeed(NodeLinks, {
    watch: (changed) =>
      Effect.sync(() => {
        watchers.add(changed)
        changed(links)
      })
  })
  return {
    layer,
    set: (next: ReadonlyArray<NodeLink>) => {
      links = next
      watchers.forEach((changed) => changed(links))
    }
  }
}

const outcomes = (node: FakeNode.FakeNode) => node.reports.map((report) => report.outcome._tag)

describe.concurrent("Worker", { timeout: 30_000 }, () => {
  it.scopedLive("runs what it is assigned and reports the outcomes", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const second = { attempt: 2, lease: 7 }
      node.waiting.push(...Array.from({ length: 50 }, (_, index) => assignment({ payload: `${index}`, ...second })))
      const expected = node.waiting.map((each) => `${each.runId} 2 7.2 ${each.runId}`)
      yield* start({
        work: () =>
          Effect.map(Attempt, (attempt) =>
            success(`${attempt.runId} ${attempt.attempt} ${attempt.fencingToken} ${attempt.idempotencyKey}`))
      }, [node])

      yield* eventually("50 reports", () =>
        node.reports.length === 50)

      const results = node.reports.map((report) => report.outcome._tag === "success" ? report.outcome.result : "")
      assert.deepStrictEqual(results.sort(), expected.sort())
      assert.strictEqual(node.out.size, 0)
    }))

  it.scopedLive("reports typed failures as the handler made them, defects as such, and lives on", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const failure: Outcome = {
        _tag: "failure",
        failure: { kind: "failure", tag: "Bad", message: "bad", error: "1" },
        retryable: false
      }
      const names = ["fail", "die", "throw", "interrupt", "unknown", "work"]
      node.waiting.push(...names.map((task, index) => assignment({ task, lease: index })))
      yield* start({
        fail: () => Effect.succeed(failure),
        die: () => Effect.die(new TypeError("broken")),
        throw: () => {
          throw new RangeError("thrown")
        },
        interrupt: () => Effect.interrupt,
        work: () => Effect.succeed(success("1"))
      }, [node])

      yield* eventually("6 reports", () => node.reports.length === 6)

      const told = node.reports.sort((a, b) => a.lease - b.lease).map(({ outcome }) =>
        outcome._tag === "failure"
          ? `${outcome.failure.kind} ${outcome.failure.tag} ${outcome.retryable}`
          : outcome._tag
      )
      assert.deepStrictEqual(told, [
        "failure Bad false",
        "defect TypeError true",
        "defect RangeError true",
        "defect Interrupted true",
        "interrupted",
        "success"
      ])
    }))

  it.scopedLive("never exceeds its slots, nor the sum of the shares, over two nodes with random load", () =>
    Effect.gen(function*() {
      const slots = 5
      let running = 0
      let runningMax = 0
      let creditMax = 0
      let aheadMax = 0
      const look = () => {
        creditMax = Math.max(creditMax, nodes.reduce((sum, node) => sum + node.state.credit, 0))
        aheadMax = Math.max(aheadMax, nodes.reduce((sum, node) => sum + node.state.ahead, 0))
      }
      const nodes = [FakeNode.make("a", { onCredit: look }), FakeNode.make("b", { onCredit: look })]
      yield* start(
        {
          work: (payload) =>
            Effect.gen(function*() {
              runningMax = Math.max(runningMax, ++running)
              yield* Effect.sleep(Number(payload))
              running -= 1
              return success("1")
            })
        },
        nodes,
        { slots }
      )
      let sent = 0
      for (let burst = 0; burst < 40; burst++) {
        const node = nodes[yield* Random.nextIntBetween(0, 2)]!
        const size = yield* Random.nextIntBetween(1, 12)
        for (let each = 0; each < size; each++) {
          node.waiting.push(assignment({ payload: String(yield* Random.nextIntBetween(0, 6)) }))
        }
        sent += size
        node.pump()
        yield* Effect.sleep(yield* Random.nextIntBetween(0, 15))
      }

      yield* eventually("all reports", () => nodes[0]!.reports.length + nodes[1]!.reports.length === sent)

      assert.isAtMost(runningMax, slots)
      assert.isAtMost(creditMax, slots)
      assert.isAtMost(aheadMax, aheadMin)
      assert.isAtLeast(aheadMax, 1)
      assert.isAtLeast(runningMax, slots - 1)
    }))

  it.scopedLive("gives the idle credit of one node to the hungry one, and back", () =>
    Effect.gen(function*() {
      const idle = FakeNode.make("idle")
      const busy = FakeNode.make("busy")
      const gate = yield* Effect.makeLatch(false)
      yield* start({ work: () => Effect.as(gate.await, success("1")) }, [idle, busy], { slots: 8 })
      yield* eventually("equal shares", () => idle.state.credit === 4 && busy.state.credit === 4)

      busy.waiting.push(...Array.from({ length: 20 }, () => assignment()))
      busy.pump()
      const [tookMs] = yield* timedAwake(eventually("7 at the busy node", () => busy.out.size === 7))

      idle.waiting.push(...Array.from({ length: 20 }, () => assignment()))
      idle.pump()
      yield* gate.open
      yield* eventually("all done", () => idle.reports.length === 20 && busy.reports.length === 20)

      assert.isBelow(tookMs, 200)
    }))

  it.scopedLive("raises a share only when what another node had out beyond its own has ended", () =>
    Effect.gen(function*() {
      const slots = 5
      const full = FakeNode.make("full", { leaseMs: 1_200 })
      const late = FakeNode.make("late")
      const gate = yield* Effect.makeLatch(false)
      let running = 0
      let runningMax = 0
      const work = () =>
        Effect.gen(function*() {
          runningMax = Math.max(runningMax, ++running)
          yield* gate.await
          running -= 1
          return success("1")
        })
      full.state.isSlow = true
      full.waiting.push(...Array.from({ length: 4 }, () => assignment()))
      yield* start({ work }, [full, late], { slots })
      yield* eventually("4 on their way", () => full.out.size === 4)

      late.waiting.push(...Array.from({ length: 3 }, () => assignment()))
      late.pump()
      yield* eventually("a lower share", () => full.state.credit === 1)
      const heartbeats = full.state.heartbeats
      yield* eventually("time for more rounds", () => full.state.heartbeats > heartbeats + 2)
      const lateCredit = late.state.credit
      full.arrive()
      yield* eventually("starts", () => running === slots)
      yield* gate.open
      yield* eventually("all reports", () => full.reports.length === 4 && late.reports.length === 3)

      assert.strictEqual(lateCredit, 1)
      assert.isAtMost(runningMax, slots)
    }))

  it.scopedLive("interrupts a cancelled attempt and reports it once it has ended", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const events: Array<string> = []
      const run = assignment()
      node.waiting.push(run)
      yield* start({
        work: () => {
          events.push("started")
          const release = Effect.delay(Effect.sync(() => events.push("released")), "20 millis")
          return Effect.never.pipe(Effect.onInterrupt(() => release))
        }
      }, [node])
      yield* eventually("a start", () => events.length === 1)

      node.say({ _tag: "cancel", attempts: [{ ...run, attempt: 2 }, run] })
      node.say({ _tag: "cancel", attempts: [run] })
      yield* eventually("a report", () => node.reports.length === 1)

      assert.deepStrictEqual(events, ["started", "released"])
      assert.deepStrictEqual(outcomes(node), ["cancelled"])
    }))

  it.scopedLive("reports a handler that ignores its cancellation after the grace, and keeps its slot taken", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const gate = yield* Effect.makeLatch(false)
      let started = 0
      const run = assignment()
      node.waiting.push(run)
      yield* start(
        {
          work: () => Effect.suspend(() => (started++, Effect.uninterruptible(Effect.as(gate.await, success("late")))))
        },
        [node],
        { slots: 2, cancelGrace: "50 millis" }
      )
      yield* eventually("a start", () => started === 1)

      node.say({ _tag: "cancel", attempts: [run] })
      yield* eventually("a report", () => node.reports.length === 1)
      node.waiting.push(assignment(), assignment(), assignment())
      node.pump()
      yield* eventually("less credit", () => node.state.credit === 1)
      yield* gate.open
      yield* eventually("the others", () => node.reports.length === 4)

      assert.deepStrictEqual(outcomes(node), ["cancelled", "success", "success", "success"])
      yield* eventually("all credit", () => node.state.credit === 2 || !node.state.isHungry)
    }))

  it.scopedLive("ends an attempt at its start-to-close timeout", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      node.waiting.push(assignment({ timeoutMs: 20 }), assignment({ timeoutMs: 60_000, payload: "0" }))
      yield* start({ work: (payload) => payload === "0" ? Effect.succeed(success("1")) : Effect.never }, [node])

      yield* eventually("2 reports", () => node.reports.length === 2)

      const outcome = node.reports[1]!.outcome
      assert.isTrue(outcome._tag === "failure" && outcome.failure.kind === "timeout" && outcome.retryable)
      assert.strictEqual(node.reports[0]!.outcome._tag, "success")
    }))

  it.scopedLive("keeps an outcome its node does not own until another says that it does", () =>
    Effect.gen(function*() {
      const before = FakeNode.make("before")
      const after = FakeNode.make("after")
      before.state.answer = () => "not-owner"
      const runs = [assignment(), assignment({ lease: 2 }), assignment({ partitionId: 2 })]
      before.waiting.push(...runs)
      yield* start({ work: () => Effect.succeed(success("1")) }, [before, after], { slots: 6 })
      yield* eventually("refusals", () => before.reports.length === 3)
      after.state.givenUp = (held) => held.filter((each) => each.lease === 2)

      after.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 0 })
      yield* eventually("the report", () => after.reports.length === 1)
      after.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 0 })
      after.say({ _tag: "owned", partitionId: 2, expects: 0, epoch: 0 })
      yield* eventually("the other", () => after.reports.length === 2)

      assert.deepStrictEqual(after.reports.map((report) => report.runId), [runs[0]!.runId, runs[2]!.runId])
      assert.deepStrictEqual(after.announced.map((each) => [each.partitionId, each.held.length]), [[1, 2], [2, 1]])
    }))

  it.scopedLive("moves running attempts to the new owner, and interrupts those it has given up", () =>
    Effect.gen(function*() {
      const before = FakeNode.make("before")
      const after = FakeNode.make("after")
      const gate = yield* Effect.makeLatch(false)
      const interrupted: Array<string> = []
      let started = 0
      before.waiting.push(assignment({ payload: "keep" }), assignment({ payload: "drop" }))
      yield* start({
        work: (payload) =>
          Effect.sync(() => started++).pipe(
            Effect.zipRight(gate.await),
            Effect.as(success(payload)),
            Effect.onInterrupt(() => Effect.sync(() => interrupted.push(payload)))
          )
      }, [before, after])
      yield* eventually("starts", () => started === 2)
      after.state.givenUp = (held) => held.slice(1)

      before.state.isDown = true
      before.cut()
      after.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 0 })
      yield* eventually("an interruption", () => interrupted.length === 1)
      yield* gate.open
      yield* eventually("a report", () => after.reports.length === 1)

      assert.deepStrictEqual(interrupted, ["drop"])
      assert.deepStrictEqual(after.reports.map((report) => report.outcome), [success("keep")])
      assert.lengthOf(before.reports, 0)
    }))

  it.scopedLive("runs no more handlers than it has slots, also when some have moved to a node that has no share", () =>
    Effect.gen(function*() {
      const before = FakeNode.make("before")
      const after = FakeNode.make("after")
      const gate = yield* Effect.makeLatch(false)
      const started: Array<string> = []
      const work = (payload: string) =>
        Effect.sync(() => void started.push(payload)).pipe(Effect.zipRight(gate.await), Effect.as(success(payload)))
      yield* start({ work }, [before, after], { slots: 1 })
      yield* eventually("the slot", () => before.state.credit + after.state.credit === 1)
      const [holder, other] = before.state.credit === 1 ? [before, after] : [after, before]
      const moving = assignment({ payload: "moves" })
      holder.say({ _tag: "assign", assignments: [moving, assignment({ payload: "waits", partitionId: 2 })] })
      yield* eventually("a start", () => started.length === 1)

      other.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 1 })
      yield* eventually("the move", () => other.announced.length === 1)
      // Each word of the node has the worker look for what could begin.
      let words = 0
      yield* eventually("a few words", () => {
        holder.say({ _tag: "assign", assignments: [] })
        return ++words >= 10
      })
      const atMove = [...started]
      yield* gate.open
      yield* eventually("both reports", () => other.reports.length + holder.reports.length === 2)

      assert.deepStrictEqual(atMove, ["moves"])
    }))

  it.scopedLive("asks a node again that counts what is not held, as it may stop counting it without a word", () =>
    Effect.gen(function*() {
      let asked = 0
      const onCredit = () => asked++
      const [before, after] = [FakeNode.make("before", { onCredit }), FakeNode.make("after", { onCredit })]
      yield* start({ work: () => Effect.succeed(success("1")) }, [before, after], { slots: 1 })
      yield* eventually("the slot", () => before.state.credit + after.state.credit === 1)
      const [holder, other] = before.state.credit === 1 ? [before, after] : [after, before]
      const lost = assignment()
      holder.out.set(lost.runId, lost)

      other.waiting.push(assignment())
      other.pump()
      yield* eventually("it is asked for its slot, again and again", () => asked >= 10)
      const whileCounted = other.state.credit
      holder.out.clear()
      yield* eventually("a report", () => other.reports.length === 1)

      assert.deepStrictEqual([holder.state.credit, whileCounted], [0, 0])
    }))

  it.scopedLive("sends outcomes again to the same node after its link was lost", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      node.state.answer = () => undefined
      node.waiting.push(assignment(), assignment())
      const ended: Array<string> = []
      yield* start({ work: () => Effect.sync(() => (ended.push("x"), success("1"))) }, [node])
      yield* eventually("ends", () => ended.length === 2)

      node.cut()
      node.state.answer = () => "accepted"
      yield* eventually("reports", () => node.reports.length === 2)

      assert.strictEqual(node.state.attached, 2)
      assert.strictEqual(node.announced.length, 1)
    }))

  it.scopedLive("tells a new owner that it holds nothing, and starts nothing of the one before", () =>
    Effect.gen(function*() {
      const before = FakeNode.make("before")
      const after = FakeNode.make("after")
      const late = assignment()
      let started = 0
      yield* start({ work: () => Effect.sync(() => (started++, success("1"))) }, [before, after])
      yield* eventually("sessions", () => before.state.credit > 0 && after.state.credit > 0)

      before.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 0 })
      after.say({ _tag: "owned", partitionId: 1, expects: 1, epoch: 1 })
      yield* eventually("the word", () => after.announced.length === 1)
      before.say({ _tag: "assign", assignments: [late] })
      after.say({ _tag: "assign", assignments: [assignment({ lease: numbersPerEpoch })] })
      yield* eventually("a report", () => after.reports.length === 1)

      assert.deepStrictEqual(after.announced, [{ partitionId: 1, held: [] }])
      assert.deepStrictEqual([before.announced.length, before.reports.length, started], [0, 0, 1])
    }))

  it.scopedLive("says what it holds once an outcome was refused: the owner may have adopted the attempt since", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const gate = yield* Effect.makeLatch(false)
      node.state.answer = ({ outcome }) => outcome._tag === "success" ? "stale" : "accepted"
      node.waiting.push(assignment({ payload: "ends" }), assignment({ payload: "stays" }))
      const work = (payload: string) =>
        payload === "ends" ? Effect.succeed(success("1")) : Effect.as(gate.await, success("2"))
      yield* start({ work }, [node], { slots: 2 })

      yield* eventually("an announcement", () => node.announced.length === 1)

      assert.deepStrictEqual(node.announced.map(({ held }) => held.length), [1])
      yield* gate.open
    }))

  it.scopedLive("asks an owner that has been replaced nothing, though it refuses an outcome last", () =>
    Effect.gen(function*() {
      const before = FakeNode.make("before")
      const after = FakeNode.make("after")
      const [gate, refusal] = [yield* Effect.makeLatch(false), yield* Effect.makeLatch(false)]
      before.state.answer = () => "stale"
      before.state.reporting = refusal
      before.waiting.push(assignment({ payload: "ends" }))
      before.waiting.push(assignment({ payload: "stays" }))
      const work = (payload: string) =>
        payload === "ends" ? Effect.succeed(success("1")) : Effect.as(gate.await, success("2"))
      yield* start({ work }, [before, after], { slots: 4 })
      yield* eventually("the outcome", () => before.state.calls === 1)

      after.state.announcing = yield* Effect.makeLatch(false)
      after.say({ _tag: "owned", partitionId: 1, expects: 2, epoch: 2 })
      yield* eventually("the question of the next", () => after.announced.length === 1)
      yield* refusal.open
      // Longer than a question to the first would take.
      yield* Effect.sleep("100 millis")
      yield* after.state.announcing.open
      yield* eventually("that the next is told", () => after.announced.at(-1)!.held.length === 1)
      yield* gate.open
      yield* eventually("a report", () => after.reports.length >= 1)

      assert.deepStrictEqual([before.announced.length, before.state.calls], [0, 1])
    }))

  it.scopedLive("stays with the owner of the highest epoch, though the answer of one before it comes last", () =>
    Effect.gen(function*() {
      const before = FakeNode.make("before")
      const after = FakeNode.make("after")
      const gate = yield* Effect.makeLatch(false)
      before.waiting.push(assignment())
      yield* start({ work: () => Effect.as(gate.await, success("1")) }, [before, after])
      yield* eventually("the assignment", () => before.out.size === 1)
      before.state.announcing = yield* Effect.makeLatch(false)
      before.state.answer = () => "not-owner"

      before.say({ _tag: "owned", partitionId: 1, expects: 1, epoch: 1 })
      yield* eventually("its question", () => before.announced.length === 1)
      after.say({ _tag: "owned", partitionId: 1, expects: 1, epoch: 2 })
      yield* eventually("the question of the next", () => after.announced.length === 1)
      yield* before.state.announcing.open
      yield* gate.open
      yield* eventually("a report", () => after.reports.length === 1)

      assert.deepStrictEqual([before.announced.length, before.state.calls], [1, 0])
    }))

  it.scopedLive("takes attempts of the owner with the highest epoch, though one that was away speaks last", () =>
    Effect.gen(function*() {
      const away = FakeNode.make("away")
      const owner = FakeNode.make("owner")
      yield* start({ work: () => Effect.succeed(success("1")) }, [away, owner])
      yield* eventually("sessions", () => away.state.credit > 0 && owner.state.credit > 0)

      owner.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 2 })
      away.say({ _tag: "owned", partitionId: 1, expects: 1, epoch: 1 })
      away.say({ _tag: "assign", assignments: [assignment({ lease: numbersPerEpoch })] })
      owner.say({ _tag: "assign", assignments: [assignment({ lease: 2 * numbersPerEpoch })] })
      yield* eventually("a report", () => owner.reports.length === 1)

      assert.deepStrictEqual([away.announced.length, away.reports.length], [0, 0])
    }))

  it.scopedLive("starts nothing new while too many outcomes wait for an answer", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const other = FakeNode.make("b")
      let started = 0
      node.state.answer = () => "not-owner"
      node.waiting.push(...Array.from({ length: 100 }, () => assignment()))
      const work = () => Effect.delay(Effect.sync(() => (started++, success("1"))), "5 millis")
      yield* start({ work }, [node, other], {
        slots: 4,
        unackedMax: 10
      })
      yield* eventually("a pause", () => started > 10 && node.state.credit === 0)
      const atPause = started

      other.state.answer = () => "accepted"
      node.state.answer = () => "accepted"
      // A node that loses a partition has none of its attempts out any more.
      node.out.clear()
      other.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 0 })
      yield* eventually("the reports that waited", () => other.reports.length >= atPause)
      node.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 0 })
      yield* eventually("the rest", () => started === 100 && node.reports.length + other.reports.length >= 100)

      assert.isBelow(atPause, 100)
    }))

  it.scopedLive("interrupts what is bound to a silent node before its lease ends, and tells the next owner", () =>
    Effect.gen(function*() {
      const leaseMs = 400
      const silent = FakeNode.make("silent", { leaseMs })
      const other = FakeNode.make("other", { leaseMs })
      const interruptedAt = yield* Deferred.make<number>()
      let started = false
      silent.waiting.push(assignment())
      yield* start({
        work: () =>
          Effect.suspend(() => {
            started = true
            return Effect.never
          }).pipe(Effect.onInterrupt(() => Deferred.succeed(interruptedAt, performance.now())))
      }, [silent, other])
      yield* eventually("a start and a heartbeat", () => started && silent.state.heartbeats > 0)

      silent.state.isSilent = true
      silent.state.isDown = true
      const before = performance.now()
      const stoodStill = yield* standStill
      const at = yield* Deferred.await(interruptedAt).pipe(Effect.timeout("15 seconds"))
      const tookMs = at - before - stoodStill.sum()
      other.say({ _tag: "owned", partitionId: 1, expects: 0, epoch: 0 })
      yield* eventually("a report", () => other.reports.length === 1)

      assert.isBelow(tookMs, leaseMs)
      assert.isAbove(at - before, leaseMs * 0.4)
      assert.deepStrictEqual(outcomes(other), ["interrupted"])
    }))

  it.scopedLive("begins nothing that it reads after a pause which has outlasted its lease", () =>
    Effect.gen(function*() {
      const leaseMs = 200
      const node = FakeNode.make("a", { leaseMs })
      let started = 0
      yield* start({ work: () => Effect.sync(() => (started++, success("1"))) }, [node])
      yield* eventually("a heartbeat", () => node.state.heartbeats > 0)

      yield* Effect.sync(() => {
        // As a process that was stopped, and finds this in its socket before any timer has fired.
        const until = performance.now() + 2 * leaseMs
        while (performance.now() < until);
        node.say({ _tag: "assign", assignments: [assignment()] })
      })
      yield* eventually("a report", () => node.reports.length === 1)

      assert.strictEqual(started, 0)
      assert.deepStrictEqual(outcomes(node), ["interrupted"])
    }))

  it.scopedLive("keeps attempts running on a heartbeat alone", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a", { leaseMs: 1_200 })
      const gate = yield* Effect.makeLatch(false)
      node.waiting.push(assignment())
      yield* start({ work: () => Effect.as(gate.await, success("1")) }, [node])

      yield* eventually("more than two leases of heartbeats", () => node.state.heartbeats >= 8)
      yield* gate.open
      yield* eventually("a report", () => node.reports.length === 1)

      assert.deepStrictEqual(outcomes(node), ["success"])
      assert.strictEqual(node.state.attached, 1)
    }))

  it.scopedLive("attaches to nodes as they are listed, and no more to those that are not", () =>
    Effect.gen(function*() {
      const first = FakeNode.make("first")
      const second = FakeNode.make("second")
      const links = changing([first.link])
      yield* start({ work: () => Effect.succeed(success("1")) }, links, { slots: 4 })
      yield* eventually("all credit", () => first.state.credit === 4)

      links.set([first.link, second.link])
      yield* eventually("shares", () => first.state.credit === 2 && second.state.credit === 2)
      links.set([second.link])
      first.cut()
      yield* eventually("all credit for the second", () => second.state.credit === 4)
      links.set([first.link, second.link])
      yield* eventually("the first again", () => first.state.credit === 2 && second.state.credit === 2)

      assert.strictEqual(first.state.attached, 2)
      assert.strictEqual(second.state.attached, 1)
    }))

  it.scopedLive("stops: lets handlers end, interrupts the rest, waits for answers, says goodbye", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      let started = 0
      node.waiting.push(assignment({ payload: "30" }), assignment({ payload: "60000" }))
      const worker = yield* start({
        work: (payload) =>
          Effect.sync(() => started++).pipe(Effect.zipRight(Effect.sleep(Number(payload))), Effect.as(success(payload)))
      }, [node])
      yield* eventually("starts", () => started === 2)

      const [tookMs] = yield* timedAwake(worker.stop)

      assert.deepStrictEqual(outcomes(node), ["success", "interrupted"])
      assert.strictEqual(node.state.goodbyes, 1)
      assert.strictEqual(node.state.credit, 0)
      assert.isBelow(tookMs, 1_000)
    }))

  it.scopedLive("stops at once when nothing runs", () =>
    Effect.gen(function*() {
      const node = FakeNode.make("a")
      const worker = yield* start({ work: () => Effect.succeed(success("1")) }, [node], { shutdownGrace: "1 minute" })
      yield* eventually("credit", () => node.state.credit === 4)

      yield* worker.stop.pipe(Effect.timeout("20 seconds"))

      assert.strictEqual(node.state.goodbyes, 1)
    }))
})
