import { decodeOutcomes, encodeAttempts, encodeToWorker } from "@orrery/api/Frames"
import type { Caller } from "@orrery/api/NodeListener"
import { type NodeAddress, SessionUnknown } from "@orrery/api/NodeRpcs"
import { assert, describe, it } from "@effect/vitest"
import { Handlers, layer as handlersLayer } from "@orrery/core/Handlers"
import type { Assignment, OutcomeReport } from "@orrery/core/WorkerProtocol"
import { Effect, Either, Exit, Layer, Scope } from "effect"
import * as TestNode from "../../api/test/TestNode.js"
import { timedAwake } from "../../testing/src/standStill.js"
import * as RemoteLinks from "../src/RemoteLinks.js"
import * as Worker from "../src/Worker.js"
import { assignment, eventually } from "./FakeNode.js"

/** A node over TCP that assigns what waits, within the credit, and knows one session at a time. */
const makeNode = (live: () => ReadonlyArray<NodeAddress>, rpcs: Partial<TestNode.Handlers> = {}) =>
  Effect.gen(function*() {
    const seen = { attached: 0, goodbyes: 0, lost: 0, credit: 0, tasks: [] as ReadonlyArray<string> }
    const waiting: Array<Assignment> = []
    const reports: Array<OutcomeReport> = []
    let out = 0
    let session: { readonly id: number; readonly caller: Caller } | undefined
    const known = (sessionId: number) =>
      session?.id === sessionId ? Effect.void : Effect.fail(new SessionUnknown({ sessionId }))
    const pump = () => {
      const some = waiting.splice(0, Math.max(0, seen.credit - out))
      out += some.length
      if (some.length > 0) session?.caller.push(encodeToWorker({ _tag: "assign", assignments: some }))
    }
    const node = yield* TestNode.make({
      ...rpcs,
      Nodes: () => Effect.sync(live),
      attach: ({ credit, tasks }, caller) =>
        Effect.sync(() => {
          const id = ++seen.attached
          Object.assign(seen, { credit, tasks })
          out = 0
          session = { id, caller }
          caller.onClosed(() => session?.id === id && seen.lost++)
          return { leaseMs: 10_000, sessionId: id }
        }),
      report: (sessionId, frame) =>
        Effect.map(known(sessionId), () => {
          const rows = Either.getOrThrow(decodeOutcomes(frame))
          reports.push(...rows)
          out -= rows.length
          pump()
          return rows.map(() => "accepted" as const)
        }),
      Announce: ({ sessionId }) => Effect.as(known(sessionId), encodeAttempts([])),
      SetCredit: ({ credit, sessionId }) =>
        Effect.map(known(sessionId), () => {
          seen.credit = credit
          pump()
          return out
        }),
      Heartbeat: ({ sessionId }) => known(sessionId),
      Goodbye: ({ sessionId }) =>
        Effect.map(known(sessionId), () => {
          seen.goodbyes++
          session = undefined
        })
    })
    return { ...node, seen, waiting, reports, pump, forget: () => session = undefined }
  })

const start = (nodes: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
    const tasks = Layer.effectDiscard(
      Effect.flatMap(Handlers, (handlers) =>
        Effect.zipRight(
          handlers.register("work", (payload) => Effect.succeed({ _tag: "success", result: payload })),
          handlers.register("later", () => Effect.succeed({ _tag: "snooze", delayMs: 5_000 }))
        ))
    )
    yield* Worker.layer({ slots: 4 }).pipe(
      Layer.provide(tasks),
      Layer.provide(handlersLayer),
      Layer.provide(RemoteLinks.layer({ nodes })),
      Layer.buildWithScope(scope)
    )
    return Scope.close(scope, Exit.void)
  })

const many = (count: number) => Array.from({ length: count }, (_, index) => assignment({ payload: `${index}` }))

describe.concurrent("RemoteLinks", { timeout: 30_000 }, () => {
  it.scopedLive("attaches to every live node over TCP, works, and says goodbye", () =>
    Effect.gen(function*() {
      const live: Array<NodeAddress> = []
      const nodes = [yield* makeNode(() => live), yield* makeNode(() => live)]
      live.push(...nodes.map((node, index) => ({ nodeId: `n${index}`, address: node.address })))
      const stop = yield* start([nodes[0]!.address])
      yield* eventually("shares", () => nodes.every((node) => node.seen.credit === 2))

      for (const node of nodes) {
        node.waiting.push(...many(100))
        node.pump()
      }
      yield* eventually("reports", () => nodes.every((node) => node.reports.length === 100))
      yield* stop

      assert.deepStrictEqual(nodes[0]!.seen.tasks, ["work", "later"])
      assert.deepStrictEqual(nodes.map((node) => node.seen.goodbyes), [1, 1])
      const results = nodes[1]!.reports.map(({ outcome }) => outcome._tag === "success" ? Number(outcome.result) : -1)
      assert.deepStrictEqual(results.sort((a, b) => a - b), Array.from({ length: 100 }, (_, index) => index))
    }))

  it.scopedLive("puts a run off at a node that can, and tells one of an earlier release of a failure", () =>
    Effect.gen(function*() {
      const live: Array<NodeAddress> = []
      // It does not know the call, as nodes of the first release do not.
      const old = yield* makeNode(() => live, { Features: () => Effect.dieMessage("Unknown request tag: Features") })
      const able = yield* makeNode(() => live, { Features: () => Effect.succeed(["outcome-delays", "more"]) })
      live.push(...[old, able].map((node, index) => ({ nodeId: `n${index}`, address: node.address })))
      yield* Effect.asVoid(start([old.address]))
      yield* eventually("shares", () => [old, able].every((node) => node.seen.credit === 2))

      for (const node of [old, able]) {
        node.waiting.push(assignment({ task: "later" }), ...many(1), assignment({ task: "later" }))
        node.pump()
      }
      yield* eventually("reports", () => [old, able].every((node) => node.reports.length === 3))

      const outcomes = ({ reports }: { readonly reports: ReadonlyArray<OutcomeReport> }) =>
        reports.map(({ outcome }) => outcome._tag).sort()
      assert.deepStrictEqual(outcomes(able), ["snooze", "snooze", "success"])
      assert.deepStrictEqual(outcomes(old), ["failure", "failure", "success"])
    }))

  it.scopedLive("attaches again at once after a broken connection or a forgotten session", () =>
    Effect.gen(function*() {
      const live: Array<NodeAddress> = []
      const node = yield* makeNode(() => live)
      live.push({ nodeId: "n", address: node.address })
      yield* Effect.asVoid(start([node.address]))
      yield* eventually("credit", () => node.seen.credit === 4)

      node.cut()
      const [tookMs] = yield* timedAwake(
        eventually("a second session", () => node.seen.attached === 2 && node.seen.credit === 4)
      )
      node.forget()
      yield* eventually("a third session", () => node.seen.attached === 3 && node.seen.credit === 4)
      node.waiting.push(...many(10))
      node.pump()
      yield* eventually("reports", () => node.reports.length === 10)

      assert.isBelow(tookMs, 1_000)
      assert.strictEqual(node.seen.goodbyes, 0)
    }))

  it.scopedLive("moves to a node that came later when its first one is killed", () =>
    Effect.gen(function*() {
      const live: Array<NodeAddress> = []
      const first = yield* makeNode(() => live)
      const second = yield* makeNode(() => live)
      live.push({ nodeId: "a", address: first.address })
      yield* Effect.asVoid(start([first.address, second.address]))
      yield* eventually("credit", () => first.seen.credit === 4)

      live.splice(0, 1, { nodeId: "b", address: second.address })
      first.kill()
      yield* eventually("credit at the second", () => second.seen.credit === 4)
      second.waiting.push(...many(10))
      second.pump()
      yield* eventually("reports", () => second.reports.length === 10)

      assert.strictEqual(second.seen.attached, 1)
    }))
})
