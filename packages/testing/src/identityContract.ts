import { assert, layer } from "@effect/vitest"
import type { Claim } from "@orrery/core/Identity"
import { Journal, type StoredRun } from "@orrery/core/Journal"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { RunReader } from "@orrery/core/RunReader"
import { Effect, type Layer } from "effect"
import { batchOf, claimOf, finishOf, samplePartition, sampleRun, takePartition, updateOf } from "./storeSamples.js"

type Owner = { readonly partitionId: number; readonly epoch: number }

/** What every store must do with identity keys, edits of waiting runs, and counts. */
export const identityContract = (
  name: string,
  store: Layer.Layer<Journal | PartitionStore | RunReader, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`Identity contract: ${name}`, (it) => {
    const commit = (...args: Parameters<typeof batchOf>) =>
      Effect.flatMap(Journal, (journal) => journal.commit(batchOf(...args)))
    /** Which of the runs were not made. */
    const claim = (owner: Owner, claims: ReadonlyArray<readonly [StoredRun, Claim]>, resend = false) =>
      commit(owner, {
        [resend ? "resends" : "inserts"]: claims.map(([run]) => run),
        claims: new Map(claims.map(([run, each]) => [run.id, each]))
      }).pipe(Effect.map(({ duplicates }) => [...duplicates]))
    const read = ({ partitionId }: Owner, ...keys: ReadonlyArray<string>) =>
      Effect.flatMap(PartitionStore, (partitions) =>
        partitions.readIdentities(partitionId, keys.map((key) => ({ task: "mail.send", key }))))
    const find = ({ partitionId }: Owner, { id }: StoredRun) =>
      Effect.flatMap(PartitionStore, (partitions) =>
        partitions.findRun(partitionId, id))

    it.effect("gives a key to the run it comes with, and shows both", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [run, other] = yield* Effect.all([sampleRun({ seq: 1, state: "scheduled" }), sampleRun({ seq: 2 })])
        const key = `é "quoted", {braced} \\ 漢`

        const duplicates = yield* claim(owner, [[run, claimOf(key)], [other, claimOf("other")]])

        assert.deepStrictEqual(duplicates, [])
        const { payload: _, ...shown } = run
        assert.deepStrictEqual(yield* read(owner, key, "nobody"), [{
          task: "mail.send",
          key,
          runId: run.id,
          expiresAt: 4_000_000_000_000,
          firstAt: 1_700_000_000_000.5,
          run: shown
        }])
        assert.lengthOf(yield* read(owner, key, "other", "nobody"), 2)
      }))

    it.effect("keeps keys apart by task and partition, and runs without one beside them", () =>
      Effect.gen(function*() {
        const [owner, second] = yield* Effect.all([takePartition(), takePartition()])
        const [run, task, partition, plain] = yield* Effect.all([
          sampleRun({ seq: 1 }),
          sampleRun({ seq: 2, task: "other" }),
          sampleRun({ seq: 1 }),
          sampleRun({ seq: 3 })
        ])

        const made = yield* commit(owner, {
          inserts: [run, task, plain],
          claims: new Map([[run.id, claimOf("k")], [task.id, claimOf("k")]])
        })
        const elsewhere = yield* claim(second, [[partition, claimOf("k")]])

        assert.deepStrictEqual([made.duplicates.size, elsewhere.length], [0, 0])
        for (const each of [run, task, plain]) assert.deepStrictEqual(yield* find(owner, each), each)
      }))

    it.effect("makes no run whose key another one has, unless it says so", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [first, second, third, beside] = yield* Effect.all([1, 2, 3, 4].map((seq) => sampleRun({ seq })))
        yield* claim(owner, [[first!, claimOf("k")]])

        const refused = yield* commit(owner, {
          inserts: [second!, beside!],
          claims: new Map([[second!.id, claimOf("k")]])
        })
        const [held] = yield* read(owner, "k")
        const replaced = yield* claim(owner, [[third!, claimOf("k", { replaces: first!.id, firstAt: 5 })]])
        const [now] = yield* read(owner, "k")

        assert.deepStrictEqual([...refused.duplicates], [second!.id])
        assert.isUndefined(yield* find(owner, second!))
        assert.deepStrictEqual(yield* find(owner, beside!), beside)
        assert.strictEqual(held!.runId, first!.id)
        assert.deepStrictEqual([replaced, now!.runId, now!.firstAt], [[], third!.id, 5])
        assert.deepStrictEqual(yield* find(owner, first!), first)
      }))

    it.effect("may be given a claim again, as a repetition of the batch or of the request", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [run, other] = yield* Effect.all([sampleRun({ seq: 1 }), sampleRun({ seq: 2 })])
        yield* claim(owner, [[run, claimOf("k")]])

        const again = yield* claim(owner, [[run, claimOf("k")], [other, claimOf("other")]])
        const resent = yield* claim(owner, [[{ ...run, seq: 9 }, claimOf("k", { replaces: run.id })]], true)

        assert.deepStrictEqual([again, resent], [[], [run.id]])
        assert.deepStrictEqual(
          (yield* read(owner, "k", "other")).map(({ runId }) => runId).sort(),
          [run.id, other.id].sort()
        )
      }))

    it.effect("takes no key for an owner before a takeover", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const old = yield* takePartition(partition)
        yield* takePartition(partition)
        const run = yield* sampleRun()

        const error = yield* Effect.flip(claim(old, [[run, claimOf("k")]]))

        assert.strictEqual(error._tag, "Fenced")
        assert.deepStrictEqual(yield* read(old, "k"), [])
      }))

    it.effect("gives one of many owners' keys to one run each when they come together", () =>
      Effect.gen(function*() {
        const owners = yield* Effect.all(Array.from({ length: 5 }, () => takePartition()))
        const runs = yield* Effect.all(owners.map(() => sampleRun()))

        const answers = yield* Effect.all(owners.map((owner, at) => claim(owner, [[runs[at]!, claimOf("k")]])), {
          concurrency: "unbounded"
        })

        assert.deepStrictEqual(answers.flat(), [])
      }))

    it.effect("shows a final run as gone, and forgets its key once that has expired", () =>
      Effect.gen(function*() {
        const store = yield* PartitionStore
        const owner = yield* takePartition()
        const [old, live, kept] = yield* Effect.all([1, 2, 3].map((seq) => sampleRun({ seq })))
        yield* claim(owner, [
          [old!, claimOf("old", { expiresAt: 1 })],
          [live!, claimOf("live", { expiresAt: 1 })],
          [kept!, claimOf("kept")]
        ])
        yield* commit(owner, { finishes: [finishOf(old!), finishOf(kept!)] })

        const shown = yield* read(owner, "old", "kept")
        const pruned = [yield* store.pruneIdentities(owner.partitionId, 10)]
        pruned.push(yield* store.pruneIdentities(owner.partitionId, 10))

        assert.deepStrictEqual(shown.map(({ run }) => run), [undefined, undefined])
        assert.deepStrictEqual(pruned, [1, 0])
        assert.deepStrictEqual((yield* read(owner, "old", "live", "kept")).map(({ key }) => key).sort(), [
          "kept",
          "live"
        ])
      }))

    it.effect("changes payload and priority of a run where an update says so", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [edited, moved] = yield* Effect.all([sampleRun({ seq: 1 }), sampleRun({ seq: 2 })])
        yield* commit(owner, { inserts: [edited, moved] })
        const fields = { state: "scheduled", scheduledAt: 1_900_000_000_000, orderKey: 1_900_000_000_000 } as const
        const { keys, task } = edited
        const edit = { payload: `{"to":"b, \"c\""}`, priority: 0, task, keys }

        yield* commit(owner, { updates: [{ ...updateOf(edited, fields), edit }, updateOf(moved, fields)] })

        assert.deepStrictEqual(yield* find(owner, edited), { ...edited, ...fields, ...edit })
        assert.deepStrictEqual(yield* find(owner, moved), { ...moved, ...fields })
        yield* commit(owner, { finishes: [finishOf(edited)] })
        const final = yield* Effect.flatMap(RunReader, (reader) => reader.find(edited.id))
        assert.deepStrictEqual([final?.payload, final?.priority], [edit.payload, 0])
      }))

    it.effect("moves a run to the line of the version of its new payload", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const keys = `{"tenant":"acme"}`
        const [plain, keyed] = yield* Effect.all([sampleRun({ seq: 1 }), sampleRun({ seq: 2, keys })])
        yield* commit(owner, { inserts: [plain, keyed] })
        const task = `${plain.task}@2`
        const edit = { payload: "2", priority: 5, task }

        yield* commit(owner, {
          updates: [
            { ...updateOf(plain), edit: { ...edit, keys: null } },
            { ...updateOf(keyed), edit: { ...edit, keys } }
          ]
        })

        const lines = [plain.task, `${plain.task}|${keys}`, task, `${task}|${keys}`]
        const page = {
          partitionId: owner.partitionId,
          afterKey: -Infinity,
          afterSeq: -Infinity,
          limit: 10,
          bytesMax: 1e6
        }
        const pages = yield* Effect.flatMap(
          PartitionStore,
          (store) => store.readLines(lines.map((line) => ({ ...page, line })))
        )
        assert.deepStrictEqual(pages.map(({ runs }) => runs.map(({ payload, seq }) => [payload, seq])), [
          [],
          [],
          [["2", 1]],
          [["2", 2]]
        ])
      }))

    it.effect("counts the runs of a partition that are not final, by their keys, up to a bound", () =>
      Effect.gen(function*() {
        const store = yield* PartitionStore
        const [owner, other] = yield* Effect.all([takePartition(), takePartition()])
        const keys = JSON.stringify({ tenant: "acme" })
        const runs = yield* Effect.all([
          sampleRun({ seq: 1, keys }),
          sampleRun({ seq: 2, keys, state: "scheduled" }),
          sampleRun({ seq: 3, state: "running", worker: "w", lease: 1 }),
          sampleRun({ seq: 4, state: "retrying" }),
          sampleRun({ seq: 5 }),
          sampleRun({ seq: 6, keys: JSON.stringify({ order: "o" }), state: "scheduled" })
        ])
        yield* commit(owner, { inserts: runs })
        yield* commit(other, { inserts: [yield* sampleRun()] })
        yield* commit(owner, { finishes: [finishOf(runs[4])] })

        const all = yield* store.countRuns(owner.partitionId, 100)
        const some = yield* store.countRuns(owner.partitionId, 3)

        const byKeys = new Map(all.groups.map((group) => [group.keys, group.runs]))
        assert.deepStrictEqual(byKeys, new Map([[keys, 2], [null, 2], [JSON.stringify({ order: "o" }), 1]]))
        assert.isTrue(all.complete)
        assert.deepStrictEqual([some.groups.reduce((sum, { runs }) => sum + runs, 0), some.complete], [3, false])
      }))
  })
