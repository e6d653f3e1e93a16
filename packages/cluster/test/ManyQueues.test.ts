/** A node with many queues: what their actors decide travels together, and each run is written as seldom as one of a single queue. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Journal, type JournalBatch } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import type { HubSession } from "../src/WorkerHub.js"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { attach, heldBack, makeResidents, name, reportOf, request, startNode, success, until } from "./actorRig.js"

const store = Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer())
const countOf = (batches: ReadonlyArray<JournalBatch>, what: "inserts" | "updates" | "finishes") =>
  batches.reduce((sum, batch) => sum + batch[what].length, 0)

describe("a node with many queues", () => {
  it.scopedLive("hears the outcomes of all of them at once, however long their commits take", () =>
    Effect.gen(function*() {
      const queues = 40
      const held = yield* heldBack(({ finishes }) => finishes.length > 0)
      const residents = yield* Effect.provideService(makeResidents(), Journal, held.journal)
      for (let at = 0; at < queues; at++) {
        const queue = { ...name, queue: `q-${at}` }
        yield* residents.host(queue, () => true)
        const actor = yield* residents.await(queue, 5_000)
        assert(actor)
        yield* actor.enqueue([request({ queue: queue.queue }), request({ queue: queue.queue })])
      }
      const { assigned, session } = attach(residents, queues)
      yield* until(() => assigned.length === queues)
      const first = assigned.splice(0)

      const reported = yield* Effect.fork(session.report(first.map((each) => reportOf(each, success))))

      // Their slots are free before any of the outcomes is durable.
      yield* until(() => assigned.length === queues)
      assert.isNull(reported.unsafePoll())
      yield* held.letGo
      assert.deepStrictEqual(yield* reported, first.map(() => "accepted"))
      assert.sameMembers(
        [...new Set([...first, ...assigned].map(({ partitionId }) => partitionId))],
        residents.list().map(({ partitionId }) => partitionId)
      )
    }).pipe(Effect.provide(store)))

  it.scopedLive("writes nothing but the end of what ends at once, and marks what goes on", () =>
    Effect.gen(function*() {
      const held = yield* heldBack(() => false)
      const { actor, residents } = yield* Effect.provideService(startNode(), Journal, held.journal)
      const runs = 20
      let goesOn = 0
      const session: HubSession | "full" = residents.hub.attach(
        { workerId: "w", tasks: ["t"], credit: 4 },
        (message) => {
          if (message._tag !== "assign") return
          const ended = message.assignments.filter(({ payload }) => payload === "1")
          goesOn += message.assignments.length - ended.length
          const reports = ended.map((each) => reportOf(each, success))
          queueMicrotask(() => session !== "full" && void Effect.runFork(session.report(reports)))
        },
        () => undefined
      )

      yield* actor.enqueue([
        ...Array.from({ length: runs }, () => request()),
        request({ payload: "2" })
      ])
      yield* until(() => countOf(held.submitted, "finishes") === runs && goesOn === 1)
      yield* until(() => actor.isWritten)

      assert.strictEqual(countOf(held.submitted, "updates"), 1)
      assert.strictEqual(held.submitted.flatMap(({ updates }) => updates)[0]?.state, "running")
    }).pipe(Effect.provide(store)))
})
