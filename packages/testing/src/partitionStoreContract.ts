import { assert, layer } from "@effect/vitest"
import { Journal, type StoredRun } from "@orrery/core/Journal"
import { type LinePageRequest, PartitionStore } from "@orrery/core/PartitionStore"
import { Effect, type Layer } from "effect"
import { batchOf, finishOf, newRunId, samplePartition, sampleRun, takePartition } from "./storeSamples.js"

const from = { afterKey: -Infinity, afterSeq: -Infinity }
const bytesMax = 1024 * 1024

/** What every `PartitionStore` must do, for what the `Journal` of the same store has written. */
export const partitionStoreContract = (name: string, store: Layer.Layer<Journal | PartitionStore, unknown>): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`PartitionStore contract: ${name}`, (it) => {
    const insert = (
      owner: { readonly partitionId: number; readonly epoch: number },
      runs: ReadonlyArray<Partial<StoredRun>>
    ) =>
      Effect.gen(function*() {
        const journal = yield* Journal
        const stored = yield* Effect.all(runs.map((fields, at) => sampleRun({ seq: at + 1, ...fields })))
        yield* journal.commit(batchOf(owner, { inserts: stored }))
        return stored
      })
    /** Asked for alone and together with others, which must be the same. */
    const readLine = (request: LinePageRequest) =>
      Effect.gen(function*() {
        const { readLines } = yield* PartitionStore
        const [alone] = yield* readLines([request])
        const none = { ...request, line: "nothing waits here" }
        const [empty, among, again] = yield* readLines([none, request, request])
        assert.deepStrictEqual(empty, { runs: [], complete: true })
        assert.deepStrictEqual([among, again], [alone, alone])
        return alone!
      })
    const idsOf = (runs: ReadonlyArray<StoredRun>) => runs.map((run) => run.id)

    it.effect("gives each owner of a partition a greater epoch", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const store = yield* PartitionStore

        const taken = yield* Effect.all(Array.from({ length: 5 }, () => store.takeOver(partition, "node")), {
          concurrency: "unbounded"
        })

        assert.strictEqual(new Set(taken.map((each) => each.partitionId)).size, 1)
        assert.strictEqual(new Set(taken.map((each) => each.epoch)).size, 5)
        const last = yield* store.takeOver(partition, "node")
        assert.isTrue(taken.every((each) => each.epoch < last.epoch))
      }))

    it.effect("keeps partitions apart by namespace, queue and number", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const taken = yield* Effect.all(
          [partition, { ...partition, partition: 1 }, { ...partition, queue: "other" }, samplePartition()].map(
            takePartition
          )
        )

        assert.strictEqual(new Set(taken.map((each) => each.partitionId)).size, 4)
      }))

    it.effect("tells a new owner what it takes over", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const empty = yield* takePartition(partition)
        const runs = yield* insert(empty, [
          { task: "b" },
          { task: "a" },
          { task: "b" },
          { task: "c", state: "scheduled" },
          { task: "d", state: "running", attempt: 1, worker: "worker-1", lease: 7, startedAt: 1 }
        ])

        const taken = yield* takePartition(partition)

        assert.deepStrictEqual([empty.lines, empty.hasTimers, empty.running], [[], false, []])
        assert.deepStrictEqual([...taken.lines].sort(), ["a", "b"])
        assert.isTrue(taken.hasTimers)
        assert.deepStrictEqual(taken.running, [runs[4]!])
      }))

    it.effect("reads the ready runs of a task page by page, in order", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        const [third, first, second, , , fourth] = yield* insert(owner, [
          { orderKey: 20, seq: 5 },
          { orderKey: -10.5, seq: 6, trace },
          { orderKey: 20, seq: 4 },
          { orderKey: 1, task: "other" },
          { orderKey: 1, state: "retrying" },
          { orderKey: 20.25, seq: 1 }
        ])
        const request = { partitionId: owner.partitionId, line: "mail.send", limit: 2, bytesMax }

        const head = yield* readLine({ ...request, ...from })
        const tail = yield* readLine({ ...request, afterKey: 20, afterSeq: 4 })
        const rest = yield* readLine({ ...request, afterKey: 20.25, afterSeq: 1 })

        assert.deepStrictEqual(head, { runs: [first!, second!], complete: false })
        assert.deepStrictEqual(idsOf(tail.runs), idsOf([third!, fourth!]))
        assert.deepStrictEqual(rest, { runs: [], complete: true })
      }))

    it.effect("counts the runs of a line before a place, no further than asked", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        yield* insert(owner, [
          { orderKey: 1 },
          { orderKey: 2 },
          { orderKey: 3, seq: 8 },
          { orderKey: 3, seq: 9 },
          { orderKey: 0, task: "other" },
          { orderKey: 0, state: "scheduled", scheduledAt: 9e12 }
        ])
        const { countBefore } = yield* PartitionStore
        const place = { partitionId: owner.partitionId, line: "mail.send", orderKey: 3, seq: 9, limit: 100 }

        assert.strictEqual(yield* countBefore(place), 3)
        assert.strictEqual(yield* countBefore({ ...place, limit: 2 }), 2)
        assert.strictEqual(yield* countBefore({ ...place, line: "nothing waits here" }), 0)
      }))

    it.effect("keeps runs with keys in lines of their own, and those of an ordering key whether due or not", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const keys = `{"tenant":"acme"}`
        const ordered = { keys: `{"order":"a/b c"}`, line: ">a/b c" }
        const [plain, own, first, , second] = yield* insert(owner, [
          {},
          { keys },
          { keys: ordered.keys, task: "other", orderKey: 1, state: "retrying", scheduledAt: 9e12 },
          { keys, state: "scheduled", scheduledAt: 9e12 },
          { keys: ordered.keys, orderKey: 2 }
        ])
        const request = { partitionId: owner.partitionId, limit: 10, bytesMax, ...from }

        const taken = yield* takePartition(partition)
        const pages = yield* Effect.forEach(
          ["mail.send", `mail.send|${keys}`, ordered.line],
          (line) => readLine({ ...request, line })
        )
        const timers = yield* Effect.flatMap(PartitionStore, (store) => store.readTimers(request))

        assert.deepStrictEqual([...taken.lines].sort(), [ordered.line, "mail.send", `mail.send|${keys}`].sort())
        assert.deepStrictEqual(pages.map(({ runs }) => runs), [[plain!], [own!], [first!, second!]])
        assert.deepStrictEqual([taken.hasTimers, timers.runs.length], [true, 1])
      }))

    it.effect("knows a page to be the last when it holds all that follow", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        yield* insert(owner, [{}, {}, {}])
        const request = { partitionId: owner.partitionId, line: "mail.send", bytesMax, ...from }

        const page = yield* readLine({ ...request, limit: 4 })

        assert.deepStrictEqual([page.runs.length, page.complete], [3, true])
      }))

    it.effect("reads runs that wait for their time by that time", () =>
      Effect.gen(function*() {
        const store = yield* PartitionStore
        const owner = yield* takePartition()
        const [late, early, , retry] = yield* insert(owner, [
          { state: "scheduled", scheduledAt: 9e12 },
          { state: "scheduled", scheduledAt: 5 },
          { state: "ready" },
          { state: "retrying", scheduledAt: 7.5, task: "other" }
        ])

        const page = yield* store.readTimers({ partitionId: owner.partitionId, limit: 10, bytesMax, ...from })
        const after = yield* store.readTimers({
          partitionId: owner.partitionId,
          limit: 10,
          bytesMax,
          afterKey: 5,
          afterSeq: 2
        })

        assert.deepStrictEqual(page, { runs: [early!, retry!, late!], complete: true })
        assert.deepStrictEqual(idsOf(after.runs), idsOf([retry!, late!]))
      }))

    it.effect("bounds a page by the bytes of its payloads, but gives one run at least", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const payload = `"${"x".repeat(10_000)}"`
        const runs = yield* insert(owner, [{ payload }, { payload }, { payload }])
        const request = { partitionId: owner.partitionId, line: "mail.send", limit: 10, ...from }

        const two = yield* readLine({ ...request, bytesMax: 25_000 })
        const one = yield* readLine({ ...request, bytesMax: 1 })
        const last = yield* readLine({ ...request, bytesMax: 1, afterKey: runs[1]!.orderKey, afterSeq: 2 })

        assert.deepStrictEqual([idsOf(two.runs), two.complete], [idsOf(runs.slice(0, 2)), false])
        assert.deepStrictEqual([idsOf(one.runs), one.complete], [idsOf(runs.slice(0, 1)), false])
        assert.deepStrictEqual([idsOf(last.runs), last.complete], [idsOf(runs.slice(2)), true])
      }))

    it.effect("finds a run of its own partition only", () =>
      Effect.gen(function*() {
        const store = yield* PartitionStore
        const [owner, other] = yield* Effect.all([takePartition(), takePartition()])
        const [run] = yield* insert(owner, [{}])

        assert.deepStrictEqual(yield* store.findRun(owner.partitionId, run!.id), run)
        assert.isUndefined(yield* store.findRun(other.partitionId, run!.id))
        assert.isUndefined(yield* store.findRun(owner.partitionId, yield* newRunId))
      }))

    it.effect("tells the present epochs of partitions, and its clock", () =>
      Effect.gen(function*() {
        const store = yield* PartitionStore
        const name = samplePartition({ queue: "epochs" })
        const before = yield* takePartition(name)
        const owner = yield* takePartition(name)
        const other = yield* takePartition()

        const epochs = yield* store.epochs([owner.partitionId, other.partitionId, 2 ** 31 - 1])
        const now = yield* store.now

        assert.isAbove(owner.epoch, before.epoch)
        assert.deepStrictEqual(
          epochs,
          new Map([[owner.partitionId, owner.epoch], [other.partitionId, other.epoch]])
        )
        assert.isAtLeast(now, owner.now)
      }))

    it.effect("lists the partitions with runs that are not final", () =>
      Effect.gen(function*() {
        const store = yield* PartitionStore
        const journal = yield* Journal
        const states = ["ready", "scheduled", "retrying", "running"] as const
        const busy = states.map((state) => samplePartition({ queue: state }))
        const done = samplePartition({ queue: "done" })
        const owners = yield* Effect.forEach(states, (state, at) =>
          Effect.tap(takePartition(busy[at]), (owner) => insert(owner, [{ state }])))
        const owner = yield* takePartition(done)
        const [run] = yield* insert(owner, [{}])
        yield* journal.commit(batchOf(owner, { finishes: [finishOf(run!)] }))

        const listed = yield* store.listWithWork([])
        const others = yield* store.listWithWork([owners[0].partitionId, owners[2]!.partitionId])

        const namespaces = new Set(busy.map(({ namespace }) =>
          namespace
        ))
        const withIds = busy.map((partition, at) => ({ ...partition, partitionId: owners[at]!.partitionId }))
        assert.sameDeepMembers(listed.filter(({ namespace }) => namespaces.has(namespace)), withIds)
        assert.sameDeepMembers(others.filter(({ namespace }) => namespaces.has(namespace)), [withIds[1]!, withIds[3]!])
        assert.isFalse(listed.some((each) => each.namespace === done.namespace))
      }))
  })
