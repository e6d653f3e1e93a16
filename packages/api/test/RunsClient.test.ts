import { assert, describe, it } from "@effect/vitest"
import { ClusterUnavailable, InvalidRequest, Overloaded, PayloadTooLarge, RunNotFound } from "@orrery/core/Errors"
import type { Run } from "@orrery/core/Run"
import { type RunId, unsafeMakeRunId } from "@orrery/core/RunId"
import { defaultPolicy, type RunRequest } from "@orrery/core/RunRequest"
import { Runs } from "@orrery/core/Runs"
import * as Watch from "@orrery/core/Watch"
import { Context, Deferred, Effect, Either, Fiber, Layer, Stream } from "effect"
import { timedAwake } from "../../testing/src/standStill.js"
import { decodeRequests } from "../src/Frames.js"
import * as RunsClient from "../src/RunsClient.js"
import * as TestNode from "./TestNode.js"

const policy = JSON.stringify(defaultPolicy)
const request = (payload = "{}"): RunRequest => ({
  id: unsafeMakeRunId(1_700_000_000_000),
  namespace: "default",
  queue: "default",
  task: "greet",
  payload,
  priority: 5,
  when: { _tag: "delay", ms: 0 },
  policy,
  keys: null,
  trace: undefined,
  resend: false
})
const finalRun = (id: RunId): Run => ({
  id,
  namespace: "default",
  queue: "default",
  partition: 0,
  task: "greet",
  state: "succeeded",
  priority: 5,
  createdAt: 1,
  scheduledAt: 1,
  startedAt: 1,
  finishedAt: 2,
  attempt: 1,
  payload: "{}",
  result: "1",
  failure: null,
  worker: "w",
  waitsFor: null
})

const client = (nodes: ReadonlyArray<TestNode.TestNode>, options: Partial<RunsClient.RunsClientOptions> = {}) =>
  Layer.build(RunsClient.layer({ nodes: nodes.map((node) => node.address), ...options })).pipe(
    Effect.map((context) => Context.get(context, Runs))
  )

/** Stores batches; each waits for `gate` before it is answered. */
const recorder = (gate: Effect.Effect<unknown> = Effect.void) => {
  const batches: Array<ReadonlyArray<RunRequest>> = []
  const enqueue: TestNode.Handlers["enqueue"] = (rows) =>
    Effect.gen(function*() {
      batches.push(Either.getOrThrow(decodeRequests(rows)))
      yield* gate
      return { failures: [] }
    })
  return { batches, enqueue }
}

describe.concurrent("RunsClient", { timeout: 30_000 }, () => {
  it.scopedLive("coalesces concurrent enqueues behind the batch in flight", () =>
    Effect.gen(function*() {
      const gate = yield* Effect.makeLatch(false)
      const { batches, enqueue } = recorder(gate.await)
      const runs = yield* client([yield* TestNode.make({ enqueue })])
      const first = yield* Effect.fork(runs.enqueueMany([request()]))
      yield* TestNode.eventually("the first batch", () => batches.length === 1)

      const others = yield* Effect.forkAll(Array.from({ length: 500 }, () => runs.enqueueMany([request()])))
      yield* gate.open
      yield* Fiber.join(Fiber.zip(first, others))

      assert.deepStrictEqual(batches.map((batch) => batch.length), [1, 500])
    }))

  it.scopedLive("cuts batches at the bound of rows and of characters, with few in flight", () =>
    Effect.gen(function*() {
      let inFlight = 0
      let inFlightMax = 0
      const { batches, enqueue } = recorder(Effect.suspend(() => {
        inFlightMax = Math.max(inFlightMax, ++inFlight)
        return Effect.delay(Effect.sync(() => inFlight--), "5 millis")
      }))
      const runs = yield* client([yield* TestNode.make({ enqueue })], {
        batchRowsMax: 10,
        batchCharsMax: 100,
        batchesInFlightMax: 2
      })

      yield* runs.enqueueMany(Array.from({ length: 35 }, () => request("1")))
      const byRows = batches.splice(0).map((batch) => batch.length)
      yield* runs.enqueueMany(Array.from({ length: 6 }, () => request(`"${"x".repeat(48)}"`)))
      const byChars = batches.map((batch) => batch.length)

      assert.deepStrictEqual(byRows, [10, 10, 10, 5])
      assert.deepStrictEqual(byChars, [2, 2, 2])
      assert.isAtMost(inFlightMax, 2)
    }))

  it.scopedLive("goes to another node when its own says that it stops, and sends nothing again", () =>
    Effect.gen(function*() {
      const stops = yield* Effect.makeLatch(false)
      const gate = yield* Effect.makeLatch(false)
      let calls = 0
      const old = recorder(Effect.suspend(() => ++calls === 1 ? gate.await : Effect.void))
      const next = recorder()
      // Of an earlier release, which does not know the call.
      const other = yield* TestNode.make({ enqueue: next.enqueue })
      const stopping = yield* TestNode.make({
        enqueue: old.enqueue,
        Leaving: () => Effect.as(stops.await, true),
        Nodes: () => Effect.succeed([{ nodeId: "other", address: other.address }])
      })
      const runs = yield* client([stopping])
      const first = yield* Effect.fork(runs.enqueueMany([request()]))
      yield* TestNode.eventually("the first batch", () => old.batches.length === 1)

      yield* stops.open
      yield* runs.enqueueMany([{ ...request(), queue: "other" }]).pipe(
        Effect.repeat({ until: () => next.batches.length > 0 })
      )
      yield* gate.open
      yield* Fiber.join(first)

      assert.isTrue(old.batches.every((batch) => batch.every(({ resend }) => !resend)))
      assert.isTrue(next.batches.every((batch) => batch.every(({ resend }) => !resend)))
    }))

  it.scopedLive("finds the node that does its work among others that send it on, and none is asked in a tight loop", () =>
    Effect.gen(function*() {
      const askedAt: Array<number> = []
      const sendsOn = () =>
        TestNode.make({
          enqueue: recorder().enqueue,
          Leaving: () => Effect.sync(() => askedAt.push(performance.now()) > 0)
        })
      const aside = [yield* sendsOn(), yield* sendsOn()]
      yield* client(aside)
      yield* TestNode.eventually("three times asked", () => askedAt.length >= 3)
      const took = askedAt[2]! - askedAt[0]!

      const third = recorder()
      const runs = yield* client([...aside, yield* TestNode.make({ enqueue: third.enqueue })])
      yield* runs.enqueueMany([request()]).pipe(
        Effect.delay("20 millis"),
        Effect.repeat({ until: () => third.batches.length > 0 })
      )

      // Half a second between two.
      assert.isAbove(took, 900)
    }))

  it.scopedLive("goes to another node when one queue is out of reach of its own, and breaks nothing there", () =>
    Effect.gen(function*() {
      const gate = yield* Effect.makeLatch(false)
      const next = recorder()
      const other = yield* TestNode.make({ enqueue: next.enqueue })
      let slowCalls = 0
      const enqueue: TestNode.Handlers["enqueue"] = (rows) =>
        Effect.suspend(() => {
          const { queue } = Either.getOrThrow(decodeRequests(rows))[0]!
          if (queue === "slow") slowCalls++
          const answered = queue === "lost" ? Effect.never : queue === "slow" ? gate.await : Effect.void
          return Effect.as(answered, { failures: [] })
        })
      const own = yield* TestNode.make({
        enqueue,
        Nodes: () => Effect.succeed([{ nodeId: "other", address: other.address }])
      })
      const runs = yield* client([own], { callTimeout: "2 seconds" })
      const send = (queue: string) => runs.enqueueMany([{ ...request(), queue }])
      const went = () => next.batches.length > 0

      const lost = yield* Effect.fork(send("lost"))
      // So that there are never three failures in a row.
      const fine = yield* Effect.fork(Effect.repeat(Effect.delay(send("fine"), "5 millis"), { until: went }))
      yield* Effect.sleep("1500 millis")
      const slow = yield* Effect.fork(send("slow"))
      yield* TestNode.eventually("the client is at the other node", went)
      yield* gate.open
      yield* Fiber.joinAll([lost, fine, slow])

      assert.include(next.batches.flat().map(({ queue }) => queue), "lost")
      assert.notInclude(next.batches.flat().map(({ queue }) => queue), "slow")
      assert.strictEqual(slowCalls, 1)
    }))

  it.scopedLive("fails only the caller of a refused row", () =>
    Effect.gen(function*() {
      const gate = yield* Effect.makeLatch(false)
      let calls = 0
      const enqueue: TestNode.Handlers["enqueue"] = (rows) => {
        const batch = Either.getOrThrow(decodeRequests(rows))
        const refused = batch.flatMap((row, index) => row.task === "huge" ? [index] : [])
        const error = new PayloadTooLarge({ task: "huge", sizeBytes: 2, limitBytes: 1 })
        return ++calls === 1
          ? Effect.as(gate.await, { failures: [] })
          : Effect.succeed({ failures: refused.map((index) => ({ index, error })) })
      }
      const runs = yield* client([yield* TestNode.make({ enqueue })])
      const first = yield* Effect.fork(runs.enqueueMany([request()]))
      yield* TestNode.eventually("the first batch", () => calls === 1)

      const good = yield* Effect.fork(runs.enqueueMany([request(), request()]))
      const bad = yield* Effect.fork(runs.enqueueMany([request(), { ...request(), task: "huge" }]))
      const alsoGood = yield* Effect.fork(runs.enqueueMany([request()]))
      yield* Effect.yieldNow()
      yield* gate.open
      yield* Fiber.joinAll([first, good, alsoGood])
      const error = yield* Effect.flip(Fiber.join(bad))

      assert.instanceOf(error, PayloadTooLarge)
      assert.strictEqual(calls, 2)
    }))

  it.scopedLive("follows a run over nodes that die, and ends with its end", () =>
    Effect.gen(function*() {
      const id = unsafeMakeRunId(1)
      const asked: Array<string> = []
      const node = (states: ReadonlyArray<Run["state"]>) =>
        TestNode.make({
          RunChanges: ({ after }) =>
            Effect.suspend(() => {
              asked.push(after)
              const state = states[Math.min(asked.length, states.length) - 1]!
              return asked.length > states.length
                ? Effect.never
                : Effect.succeed(Watch.changesOf(after, { ...finalRun(id), state }, null))
            })
        })
      const nodes = [yield* node(["ready", "running"]), yield* node(["ready", "running", "running", "succeeded"])]
      const runs = yield* client(nodes)
      const told: Array<string> = []
      const watch = yield* Watch.run(id).pipe(
        Stream.runForEach(({ change }) =>
          Effect.sync(() => void told.push(change._tag === "state" ? change.state : change._tag))
        ),
        Effect.provideService(Runs, runs),
        Effect.fork
      )
      yield* TestNode.eventually("two states and a poll that waits", () => asked.length >= 3)

      nodes[0]!.kill()
      yield* Effect.timeout(Fiber.join(watch), "10 seconds")

      assert.deepStrictEqual(told, ["ready", "running", "end"])
    }))

  it.scopedLive("refuses an invalid request before anything is sent", () =>
    Effect.gen(function*() {
      const { batches, enqueue } = recorder()
      const runs = yield* client([yield* TestNode.make({ enqueue })])

      const name = yield* Effect.flip(runs.enqueueMany([request(), { ...request(), queue: "no spaces" }]))
      const size = yield* Effect.flip(runs.enqueueMany([request("x".repeat(300_000))]))

      assert.instanceOf(name, InvalidRequest)
      assert.instanceOf(size, PayloadTooLarge)
      assert.lengthOf(batches, 0)
    }))

  it.scopedLive("sends the rows of a broken connection again, marked as such, to another node", () =>
    Effect.gen(function*() {
      const dead = recorder(Effect.never)
      const alive = recorder()
      const nodes = [yield* TestNode.make({ enqueue: dead.enqueue }), yield* TestNode.make({ enqueue: alive.enqueue })]
      const runs = yield* client(nodes)
      const rows = [request(), request()]
      const call = yield* Effect.fork(runs.enqueueMany(rows))
      yield* TestNode.eventually("the first batch", () => dead.batches.length === 1)

      nodes[0]!.kill()
      const [tookMs] = yield* timedAwake(Fiber.join(call))

      assert.isBelow(tookMs, 1_000)
      assert.deepStrictEqual(dead.batches[0], rows)
      assert.deepStrictEqual(alive.batches, [rows.map((row) => ({ ...row, resend: true }))])
    }))

  it.scopedLive("sends again what the owner could not be found for, and holds nobody else up", () =>
    Effect.gen(function*() {
      const seen: Array<RunRequest> = []
      let isOwned = false
      const enqueue: TestNode.Handlers["enqueue"] = (rows) =>
        Effect.sync(() => {
          const batch = Either.getOrThrow(decodeRequests(rows))
          seen.push(...batch)
          const error = new ClusterUnavailable({ operation: "enqueue", reason: "no owner" })
          const failures = batch.flatMap((row, index) => row.queue === "orphan" && !isOwned ? [{ index, error }] : [])
          return { failures }
        })
      const runs = yield* client([yield* TestNode.make({ enqueue })])
      const orphan = { ...request(), queue: "orphan" }
      const waiting = yield* Effect.fork(runs.enqueueMany([orphan]))
      yield* TestNode.eventually("a second try", () => seen.filter((row) => row.queue === "orphan").length === 2)

      yield* runs.enqueueMany([request()])
      isOwned = true
      yield* Fiber.join(waiting)

      const orphans = seen.filter((row) => row.queue === "orphan")
      assert.deepStrictEqual(orphans.map((row) => row.resend).slice(0, 2), [false, true])
    }))

  it.scopedLive("leaves a frozen node within seconds", () =>
    Effect.gen(function*() {
      const { batches, enqueue } = recorder()
      const nodes = [yield* TestNode.make({ enqueue }), yield* TestNode.make({ enqueue })]
      const runs = yield* client(nodes)
      yield* runs.enqueueMany([request()])
      nodes[0]!.freeze()

      yield* runs.enqueueMany([request()]).pipe(Effect.timeout("15 seconds"))

      assert.lengthOf(batches, 2)
      assert.isTrue(batches[1]![0]!.resend)
    }))

  it.scopedLive("gives up with ClusterUnavailable when its budget ends", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({})
      node.kill()
      const runs = yield* client([node], { budget: "300 millis", callTimeout: "200 millis" })

      const errors = yield* Effect.all([
        Effect.flip(runs.enqueueMany([request()])),
        Effect.flip(runs.get(request().id)),
        Effect.flip(runs.awaitFinal(request().id))
      ], { concurrency: 3 })

      for (const error of errors) assert.instanceOf(error, ClusterUnavailable)
    }))

  it.scopedLive("refuses calls above the bound of waiting rows", () =>
    Effect.gen(function*() {
      const { batches, enqueue } = recorder(Effect.never)
      const runs = yield* client([yield* TestNode.make({ enqueue })], { pendingRowsMax: 3 })
      yield* Effect.fork(runs.enqueueMany([request()]))
      yield* TestNode.eventually("the first batch", () => batches.length === 1)
      yield* Effect.fork(runs.enqueueMany([request(), request()]))
      yield* Effect.yieldNow()

      const error = yield* Effect.flip(runs.enqueueMany([request(), request()]))

      assert.instanceOf(error, Overloaded)
    }))

  it.scopedLive("waits for a final run by long polls, across a node failure", () =>
    Effect.gen(function*() {
      const polls = [0, 0]
      const done = yield* Deferred.make<void>()
      const AwaitFinal = (index: number): TestNode.Handlers["AwaitFinal"] => ({ id, waitMs }) => {
        polls[index]! += 1
        return Deferred.await(done).pipe(
          Effect.as(finalRun(id)),
          Effect.timeoutTo({
            duration: waitMs,
            onSuccess: (run) => run,
            onTimeout: () => null
          })
        )
      }
      const nodes = [
        yield* TestNode.make({ AwaitFinal: AwaitFinal(0) }),
        yield* TestNode.make({ AwaitFinal: AwaitFinal(1) })
      ]
      const runs = yield* client(nodes, { awaitPoll: "30 millis" })
      const id = request().id
      const waiting = yield* Effect.fork(runs.awaitFinal(id))
      yield* TestNode.eventually("a second poll", () => polls[0]! >= 2)

      nodes[0]!.kill()
      yield* TestNode.eventually("a poll of the other node", () => polls[1]! >= 1)
      yield* Deferred.succeed(done, undefined)
      const run = yield* Fiber.join(waiting)

      assert.deepStrictEqual(run, finalRun(id))
    }))

  it.scopedLive("goes on waiting when it loses a node long after it lost another, whatever its budget", () =>
    Effect.gen(function*() {
      let polls = 0
      const done = yield* Deferred.make<void>()
      const node = yield* TestNode.make({
        AwaitFinal: ({ id }) => {
          polls += 1
          return Effect.as(Deferred.await(done), finalRun(id))
        }
      })
      const runs = yield* client([node], { budget: "1 second" })
      const id = request().id
      const waiting = yield* Effect.fork(runs.awaitFinal(id))
      yield* TestNode.eventually("a poll", () => polls === 1)
      node.cut()
      yield* TestNode.eventually("a poll over another connection", () => polls === 2)
      // Longer than the budget, and long enough for pings to have shown that the node lives.
      yield* Effect.sleep("2700 millis")

      node.cut()
      yield* TestNode.eventually("one more poll", () => polls === 3)
      yield* Deferred.succeed(done, undefined)

      assert.deepStrictEqual(yield* Fiber.join(waiting), finalRun(id))
    }))

  it.scopedLive("stays with a node that answers calls, though a ping of it is late", () =>
    Effect.gen(function*() {
      let pings = 0
      let elsewhere = 0
      const Get: TestNode.Handlers["Get"] = ({ id }) => new RunNotFound({ runId: id })
      const slow = yield* TestNode.make({
        Ping: () => Effect.suspend(() => pings++ === 0 ? Effect.succeed("slow") : Effect.never),
        Get
      })
      const other = yield* TestNode.make({ Get: (call, options) => (elsewhere += 1, Get(call, options)) })
      const runs = yield* client([slow, other])
      const ask = Effect.flip(runs.get(request().id))

      yield* Effect.zipRight(ask, Effect.sleep("50 millis")).pipe(Effect.repeat({ times: 40 }))

      assert.isAtLeast(pings, 2)
      assert.strictEqual(elsewhere, 0)
    }))

  it.scopedLive("learns of nodes it was not told of", () =>
    Effect.gen(function*() {
      const hidden = yield* TestNode.make({ Cancel: () => Effect.succeed("cancelled" as const) })
      let asked = 0
      const seed = yield* TestNode.make({
        Nodes: () => Effect.sync(() => (asked++, [{ nodeId: "b", address: hidden.address }])),
        Get: ({ id }) => new RunNotFound({ runId: id })
      })
      const runs = yield* client([seed])
      const error = yield* Effect.flip(runs.get(request().id))
      yield* TestNode.eventually("the list of nodes", () => asked > 0)
      yield* Effect.flip(runs.get(request().id))

      seed.kill()
      const answer = yield* runs.cancel(request().id)

      assert.instanceOf(error, RunNotFound)
      assert.strictEqual(answer, "cancelled")
    }))
})
