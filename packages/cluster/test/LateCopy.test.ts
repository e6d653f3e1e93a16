/**
 * A request is sent again, and its copy reaches the new owner of the queue before the page that holds the run of the first
 * one. The run must not end while the copy is on its way to the store: side by side, the copy would make it anew.
 */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Journal, type JournalBatch } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { sampleRun } from "@orrery/testing/storeSamples"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { attach, heldBack, name, reportOf, request, startNode, success, until } from "./actorRig.js"

const id = unsafeMakeRunId(1_700_000_000_000)

it.scopedLive("a run does not end while another copy of its request is on its way to the store", () =>
  Effect.gen(function*() {
    const store = yield* Layer.build(MemoryStore.layer)
    const journal = Context.get(store, Journal)
    const partitions = Context.get(store, PartitionStore)
    // The run of the first copy, by an earlier owner.
    const { epoch, partitionId } = yield* partitions.takeOver(name, "earlier")
    const { policy } = request()
    const run = yield* sampleRun({ id, task: "t", policy, payload: "1" })
    yield* journal.commit({ partitionId, epoch, inserts: [{ run, resend: false }], updates: [], finishes: [] })

    const mayRead = yield* Effect.makeLatch(false)
    const { journal: slow, letGo, submitted } = yield* Effect.provide(
      heldBack(({ inserts }) => inserts.length > 0),
      store
    )
    const late = PartitionStore.of({
      ...partitions,
      readLines: (pages) => Effect.zipRight(mayRead.await, partitions.readLines(pages))
    })
    const { actor, residents } = yield* startNode().pipe(
      Effect.provide(Context.merge(store, Context.make(Journal, slow).pipe(Context.add(PartitionStore, late))))
    )
    const { assigned, session } = attach(residents, 1)
    const isFinish = ({ finishes }: JournalBatch) => finishes.length > 0

    const enqueued = yield* Effect.fork(actor.enqueue([request({ id, resend: true })]))
    yield* until(() => submitted.some(({ inserts }) => inserts.length > 0))
    yield* mayRead.open
    yield* until(() => assigned.length === 1)
    const reported = yield* Effect.fork(session.report([reportOf(assigned[0]!, success)]))
    yield* until(() => actor.machine.find(id)?.place === "finishing")
    yield* Effect.sleep("50 millis")
    assert.isFalse(submitted.some(isFinish))

    yield* letGo
    assert.deepStrictEqual(yield* Fiber.join(enqueued), ["stored"])
    assert.deepStrictEqual(yield* Fiber.join(reported), ["accepted"])
    assert.strictEqual(submitted.filter(isFinish).length, 1)
    assert.isUndefined(yield* partitions.findRun(partitionId, id))
    assert.strictEqual(assigned.length, 1)
  }).pipe(Effect.provide(ClusterConfig.layer())))
