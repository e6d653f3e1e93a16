/** A partition that goes from one node to another while it is used. Over the memory store. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Journal } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope, TestClock } from "effect"
import { attach, heldBack, makeResidents, name, reportOf, request, startNode, success, until } from "./actorRig.js"

/** A node that has the partition until `letGo`, and how often it has called its heir. */
const oldOwner = Effect.gen(function*() {
  const residents = yield* makeResidents({ nodeId: "old" })
  const scope = yield* Scope.make()
  let isMoving = false
  let calls = 0
  const passage = { isOpen: () => isMoving, callHeir: Effect.sync(() => void calls++) }
  yield* Scope.extend(residents.host(name, () => !isMoving, passage), scope)
  yield* Effect.yieldNow()
  const actor = residents.find(name)
  assert(actor)
  const letGo = Effect.suspend(() => {
    isMoving = true
    return Scope.close(scope, Exit.void)
  })
  return { actor, calls: () => calls, letGo, residents }
})

const store = Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer())

describe("a partition that is handed over", () => {
  it.scopedLive("is let go of when all that was started is durable, and served until its heir has it", () =>
    Effect.gen(function*() {
      const { journal, letGo: write } = yield* heldBack(({ updates }) => updates.length > 0)
      const { actor, calls, letGo, residents } = yield* oldOwner.pipe(Effect.provideService(Journal, journal))
      const { assigned, session } = attach(residents, 1)
      yield* actor.enqueue([request(), request()])
      yield* until(() => assigned.length === 1)

      const closing = yield* Effect.fork(letGo)
      yield* Effect.sleep("20 millis")
      assert.isNull(yield* Fiber.poll(closing).pipe(Effect.map((exit) => exit._tag === "None" ? null : exit)))
      yield* write
      yield* Fiber.join(closing)

      // Nothing more is started, all else goes on.
      assert.strictEqual(residents.find(name), actor)
      assert.deepStrictEqual(yield* actor.enqueue([request()]), ["stored"])
      assert.deepStrictEqual(yield* session.report([reportOf(assigned[0]!, success)]), ["accepted"])
      assert.strictEqual(assigned.length, 1)
      yield* until(() => calls() > 0)

      const heir = yield* startNode({ nodeId: "heir" })
      const worker = attach(heir.residents)
      assert.strictEqual(yield* Effect.flip(actor.enqueue([request()])), "not-owner")
      yield* until(() => worker.assigned.length === 2)
      yield* until(() => residents.list().length === 0)
      assert.strictEqual(assigned.length, 1)
    }).pipe(Effect.provide(store)))

  it.scopedLive("cancels what waits, and leaves it to its heir to cancel what runs", () =>
    Effect.gen(function*() {
      const { actor, letGo, residents } = yield* oldOwner
      const { assigned } = attach(residents, 1)
      const requests = [request(), request()]
      yield* actor.enqueue(requests)
      yield* until(() => assigned.length === 1)
      yield* letGo
      const running = assigned[0]!.runId
      const waiting = requests.find(({ id }) => id !== running)!.id

      assert.strictEqual(yield* actor.cancel(waiting), "cancelled")
      const cancelling = yield* Effect.fork(Effect.flip(actor.cancel(running)))
      yield* Effect.sleep("20 millis")
      assert.strictEqual((yield* Fiber.poll(cancelling))._tag, "None")

      const heir = yield* startNode({ nodeId: "heir" })
      assert.strictEqual(yield* Fiber.join(cancelling), "not-owner")
      assert.strictEqual(yield* heir.actor.cancel(running), "requested")
      assert.isUndefined(yield* heir.actor.cancel(waiting))
    }).pipe(Effect.provide(store)))

  it.scopedLive("keeps its attempts, whoever is told how they end", () =>
    Effect.gen(function*() {
      const { actor, letGo, residents } = yield* oldOwner
      const before = attach(residents)
      yield* actor.enqueue([request(), request()])
      yield* until(() => before.assigned.length === 2)
      yield* letGo
      const heir = yield* startNode({ nodeId: "heir" })
      const after = attach(heir.residents)
      const [first, second] = before.assigned

      const told = yield* before.session.report([reportOf(first!, success)])
      const stale = after.session.announce(first!.partitionId, [first!, second!])
      const toldHeir = yield* after.session.report([first!, second!].map((each) => reportOf(each, success)))

      assert.deepStrictEqual([told, stale, toldHeir], [["not-owner"], [], ["accepted", "accepted"]])
      assert.strictEqual(after.assigned.length, 0)
    }).pipe(Effect.provide(store)))

  it.scoped("ends at rest when it finds its heir, and without one after a while", () =>
    Effect.gen(function*() {
      const first = yield* oldOwner
      yield* first.letGo
      yield* makeResidents({ nodeId: "heir" }).pipe(Effect.flatMap((heir) => heir.host(name, () => true)))
      assert.isDefined(first.residents.find(name))
      yield* TestClock.adjust("50 millis")
      assert.isUndefined(first.residents.find(name))
    }).pipe(
      Effect.zipRight(Effect.gen(function*() {
        const second = yield* oldOwner
        yield* second.letGo
        yield* TestClock.adjust("4 seconds")
        assert.isDefined(second.residents.find(name))
        yield* TestClock.adjust("1 seconds")
        assert.strictEqual(second.residents.list().length, 0)
      })),
      Effect.provide(store)
    ))

  it.scopedLive("that comes back is taken over anew, by an owner that starts again", () =>
    Effect.gen(function*() {
      const { actor, letGo, residents } = yield* oldOwner
      yield* letGo
      const { assigned } = attach(residents)
      yield* actor.enqueue([request()])

      yield* residents.host(name, () => true)

      yield* until(() => assigned.length === 1)
      assert.isAbove(residents.find(name)!.epoch, actor.epoch)
      assert.isFalse(actor.isOpen)
    }).pipe(Effect.provide(store)))
})
