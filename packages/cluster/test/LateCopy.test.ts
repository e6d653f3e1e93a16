/**
 * A request is sent again, and its copy reaches the new owner of the queue before the page that holds the run of the first
 * one. The run must not end while the copy is on its way to the store: side by side, the copy would make it anew.
 */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { fromSubmit, Journal, type JournalBatch } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { defaultPolicy, type RunRequest } from "@orrery/core/RunRequest"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import { sampleRun } from "@orrery/testing/storeSamples"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import * as Residents from "../src/Residents.js"

const name = { namespace: "default", queue: "q", partition: 0 }
const id = unsafeMakeRunId(1_700_000_000_000)
const policy = JSON.stringify(defaultPolicy)
const request: RunRequest = {
  id,
  namespace: "default",
  queue: "q",
  task: "t",
  payload: "1",
  priority: 5,
  when: { _tag: "delay", ms: 0 },
  policy,
  keys: null,
  resend: true
}

const until = (holds: () => boolean) =>
  Effect.sync(holds).pipe(
    Effect.tap((held) => held ? Effect.void : Effect.sleep("1 millis")),
    Effect.repeat({ until: (held) => held }),
    Effect.timeout("10 seconds")
  )

it.scopedLive("a run does not end while another copy of its request is on its way to the store", () =>
  Effect.gen(function*() {
    const store = yield* Layer.build(MemoryStore.layer)
    const journal = Context.get(store, Journal)
    const partitions = Context.get(store, PartitionStore)
    // The run of the first copy, by an earlier owner.
    const { epoch, partitionId } = yield* partitions.takeOver(name, "earlier")
    const run = yield* sampleRun({ id, task: "t", policy, payload: "1" })
    yield* journal.commit({ partitionId, epoch, inserts: [{ run, resend: false }], updates: [], finishes: [] })

    const submitted: Array<JournalBatch> = []
    const mayInsert = yield* Effect.makeLatch(false)
    const mayRead = yield* Effect.makeLatch(false)
    const slow = fromSubmit((batch, done) => {
      submitted.push(batch)
      const go = () => journal.submit(batch, done)
      if (batch.inserts.length > 0) Effect.runFork(Effect.zipRight(mayInsert.await, Effect.sync(go)))
      else go()
    })
    const late = PartitionStore.of({
      ...partitions,
      readLines: (pages) => Effect.zipRight(mayRead.await, partitions.readLines(pages))
    })
    const residents = yield* Residents.make({
      nodeId: "node",
      windowRunsMax: 100,
      windowBytesMax: 1e6,
      mayTakeOver: () => true
    }).pipe(Effect.provide(Context.merge(store, Context.make(Journal, slow).pipe(Context.add(PartitionStore, late)))))
    yield* residents.host(name, () => true)
    const actor = yield* residents.await(name, 5_000)
    assert(actor)
    const assigned: Array<Assignment> = []
    const session = residents.hub.attach({ workerId: "w", tasks: ["t"], credit: 1 }, (message) => {
      if (message._tag === "assign") assigned.push(...message.assignments)
    }, () => undefined)
    assert(session !== "full")
    // The actor is closed only once it has an answer.
    yield* Effect.addFinalizer(() => mayInsert.open)
    const isFinish = ({ finishes }: JournalBatch) => finishes.length > 0

    const enqueued = yield* Effect.fork(actor.enqueue([request]))
    yield* until(() => submitted.some(({ inserts }) => inserts.length > 0))
    yield* mayRead.open
    yield* until(() => assigned.length === 1)
    const { attempt, lease, runId } = assigned[0]!
    const outcome = { _tag: "success", result: "1" } as const
    const reported = yield* Effect.fork(session.report([{ attempt, lease, partitionId, runId, outcome }]))
    yield* until(() => submitted.some(({ updates }) => updates.length > 0) || submitted.some(isFinish))
    yield* Effect.sleep("50 millis")
    assert.isFalse(submitted.some(isFinish))

    yield* mayInsert.open
    assert.deepStrictEqual(yield* Fiber.join(enqueued), ["stored"])
    assert.deepStrictEqual(yield* Fiber.join(reported), ["accepted"])
    assert.strictEqual(submitted.filter(isFinish).length, 1)
    assert.isUndefined(yield* partitions.findRun(partitionId, id))
    assert.strictEqual(assigned.length, 1)
  }).pipe(Effect.provide(ClusterConfig.layer())))
