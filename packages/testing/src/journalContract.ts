import { assert, layer } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import { PartitionStore } from "@orrery/core/PartitionStore"
import type { RunId } from "@orrery/core/RunId"
import { RunReader } from "@orrery/core/RunReader"
import { Effect, type Layer } from "effect"
import { batchOf, finishOf, samplePartition, sampleRun, takePartition, updateOf } from "./storeSamples.js"

/** What every `Journal` must do, seen through the `PartitionStore` and `RunReader` of the same store. */
export const journalContract = (
  name: string,
  store: Layer.Layer<Journal | PartitionStore | RunReader, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`Journal contract: ${name}`, (it) => {
    const commit = (...args: Parameters<typeof batchOf>) =>
      Effect.flatMap(Journal, (journal) => journal.commit(batchOf(...args)))
    const find = (partitionId: number, id: Parameters<PartitionStore["Type"]["findRun"]>[1]) =>
      Effect.flatMap(PartitionStore, (partitions) => partitions.findRun(partitionId, id))

    it.effect("keeps a run exactly as it was given", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const run = yield* sampleRun({
          seq: 2 ** 53 - 1,
          payload: `{"text":"quote \\" slash \\\\ comma , brace } NULL é 漢 🚀\\u0000"}`,
          policy: "",
          state: "retrying",
          scheduledAt: 1_700_000_000_000.125,
          orderKey: 1_700_000_060_000.0625,
          attempt: 3,
          crashes: 1,
          lease: 2 ** 52,
          worker: "NULL",
          failure: `{"kind":"failure"}`,
          startedAt: 1_700_000_000_000.7
        })
        const plain = yield* sampleRun({ seq: 2 })

        const { duplicates, now } = yield* commit(owner, { inserts: [run, plain] })

        assert.strictEqual(duplicates.size, 0)
        assert.isAtLeast(now, owner.now)
        assert.deepStrictEqual(yield* find(owner.partitionId, run.id), run)
        assert.deepStrictEqual(yield* find(owner.partitionId, plain.id), plain)
      }))

    it.effect("refuses the owner before a takeover and writes nothing of its batch", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const old = yield* takePartition(partition)
        const [kept, added, ended] = yield* Effect.all([
          sampleRun({ seq: 1 }),
          sampleRun({ seq: 2 }),
          sampleRun({ seq: 3 })
        ])
        yield* commit(old, { inserts: [kept, ended] })
        const next = yield* takePartition(partition)

        const error = yield* Effect.flip(commit(old, {
          inserts: [added],
          updates: [updateOf(kept, { state: "running", attempt: 1 })],
          finishes: [finishOf(ended)]
        }))

        assert.strictEqual(error._tag, "Fenced")
        assert.deepStrictEqual(yield* find(next.partitionId, kept.id), kept)
        assert.deepStrictEqual(yield* find(next.partitionId, ended.id), ended)
        assert.isUndefined(yield* find(next.partitionId, added.id))
      }))

    it.effect("refuses a partition that does not exist", () =>
      Effect.gen(function*() {
        const run = yield* sampleRun()

        const error = yield* Effect.flip(commit({ partitionId: 2 ** 31 - 1, epoch: 1 }, { inserts: [run] }))

        assert.strictEqual(error._tag, "Fenced")
      }))

    it.effect("commits batches that are handed over together with a fenced one", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const old = yield* takePartition(partition)
        yield* takePartition(partition)
        const others = yield* Effect.all(Array.from({ length: 5 }, () => takePartition()))
        const runs = yield* Effect.all(others.map(() => sampleRun()))
        const stray = yield* sampleRun()

        const [fenced] = yield* Effect.all([
          Effect.flip(commit(old, { inserts: [stray] })),
          ...others.map((owner, at) => commit(owner, { inserts: [runs[at]!] }))
        ], { concurrency: "unbounded" })

        assert.strictEqual(fenced._tag, "Fenced")
        for (const [at, owner] of others.entries()) {
          assert.deepStrictEqual(yield* find(owner.partitionId, runs[at]!.id), runs[at])
        }
      }))

    it.effect("answers which inserts were there before, and leaves those as they are", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [first, fresh] = yield* Effect.all([sampleRun({ seq: 1 }), sampleRun({ seq: 3 })])
        yield* commit(owner, { inserts: [first] })

        const { duplicates } = yield* commit(owner, { inserts: [{ ...first, seq: 2, payload: "{}" }, fresh] })

        assert.deepStrictEqual([...duplicates], [first.id])
        assert.deepStrictEqual(yield* find(owner.partitionId, first.id), first)
        assert.deepStrictEqual(yield* find(owner.partitionId, fresh.id), fresh)
      }))

    it.effect("does not make a final run again, also when its first copy comes last", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const run = yield* sampleRun()
        yield* commit(owner, { inserts: [run] })
        yield* commit(owner, { finishes: [finishOf(run)] })

        const again = yield* commit(owner, { resends: [{ ...run, seq: 2 }] })
        const late = yield* commit(owner, { inserts: [{ ...run, seq: 3 }] })

        assert.deepStrictEqual([[...again.duplicates], [...late.duplicates]], [[run.id], [run.id]])
        assert.isUndefined(yield* find(owner.partitionId, run.id))
      }))

    it.effect("makes one run when two partitions insert the same id at once", () =>
      Effect.gen(function*() {
        const owners = yield* Effect.all([takePartition(), takePartition(), takePartition()])
        const run = yield* sampleRun()

        const answers = yield* Effect.all(owners.map((owner) => commit(owner, { inserts: [run] })), {
          concurrency: "unbounded"
        })

        const made = owners.filter((_, at) => answers[at]!.duplicates.size === 0)
        assert.strictEqual(made.length, 1)
        assert.deepStrictEqual(yield* find(made[0]!.partitionId, run.id), run)
      }))

    it.effect("changes what an update names and nothing else", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [run, other] = yield* Effect.all([sampleRun({ seq: 1 }), sampleRun({ seq: 2 })])
        yield* commit(owner, { inserts: [run, other] })
        const update = updateOf(run, {
          state: "running",
          scheduledAt: 1_700_000_001_000,
          orderKey: 1_700_000_002_000.5,
          attempt: 1,
          crashes: 2,
          lease: owner.epoch * 2 ** 30,
          worker: "worker-1",
          failure: `{"kind":"crashed"}`,
          startedAt: 1_700_000_000_900.25
        })

        yield* commit(owner, { updates: [update] })

        assert.deepStrictEqual(yield* find(owner.partitionId, run.id), { ...run, ...update })
        assert.deepStrictEqual(yield* find(owner.partitionId, other.id), other)
      }))

    it.effect("tells which updates met no run", () =>
      Effect.gen(function*() {
        const [owner, other] = yield* Effect.all([takePartition(), takePartition()])
        const [run, ended, foreign] = yield* Effect.all([1, 2, 3].map((seq) => sampleRun({ seq })))
        yield* commit(owner, { inserts: [run!, ended!] })
        yield* commit(other, { inserts: [foreign!] })
        yield* commit(owner, { finishes: [finishOf(ended!)] })

        const all = yield* commit(owner, { updates: [updateOf(run!, { attempt: 1 })] })
        const some = yield* commit(owner, { updates: [updateOf(ended!), updateOf(run!, { attempt: 2 })] })
        const none = yield* commit(owner, { updates: [updateOf(foreign!, { attempt: 3 })] })

        assert.isUndefined(all.gone)
        assert.deepStrictEqual(some.gone, new Set([ended!.id]))
        assert.deepStrictEqual(none.gone, new Set([foreign!.id]))
        assert.strictEqual((yield* find(owner.partitionId, run!.id))?.attempt, 2)
        assert.deepStrictEqual(yield* find(other.partitionId, foreign!.id), foreign)
      }))

    it.effect("moves a finished run to history with the time of the database", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const run = yield* sampleRun()
        const before = yield* commit(owner, { inserts: [run] })

        const after = yield* commit(owner, { finishes: [finishOf(run)] })

        assert.isUndefined(yield* find(owner.partitionId, run.id))
        const reader = yield* RunReader
        const final = yield* reader.find(run.id)
        assert(final)
        assert.strictEqual(final.state, "succeeded")
        assert.isAtLeast(final.finishedAt!, Math.floor(before.now))
        // The clock is read while the statement runs, once for the answer and once for the row.
        assert.isAtMost(final.finishedAt!, after.now + 1_000)
      }))

    it.effect("leaves the runs of other partitions alone", () =>
      Effect.gen(function*() {
        const [owner, other] = yield* Effect.all([takePartition(), takePartition()])
        const [run, second] = yield* Effect.all([sampleRun({ seq: 1 }), sampleRun({ seq: 2 })])
        yield* commit(other, { inserts: [run, second] })

        yield* commit(owner, { updates: [updateOf(run, { attempt: 9 })], finishes: [finishOf(second)] })

        assert.deepStrictEqual(yield* find(other.partitionId, run.id), run)
        assert.deepStrictEqual(yield* find(other.partitionId, second.id), second)
      }))

    it.effect("shows the starts of a roll to the next owner, and not before", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const other = yield* takePartition()
        const runs = yield* Effect.all([1, 2, 3].map((seq) => sampleRun({ seq, lease: seq })))
        const foreign = yield* sampleRun({ seq: 4 })
        yield* commit(owner, { inserts: runs })
        yield* commit(other, { inserts: [foreign] })
        const starts = [...runs, foreign].map(({ id }, at) => ({
          id,
          attempt: 1 + at,
          lease: owner.epoch * 2 ** 30 + at,
          worker: at === 1 ? `{"a,b'\\}` : "worker-1",
          startedAt: 1_700_000_000_900.25 + at
        }))

        yield* commit(owner, { roll: { slot: 0, starts } })

        assert.deepStrictEqual(yield* find(owner.partitionId, runs[0]!.id), runs[0])
        const next = yield* takePartition(partition)
        const byId = (list: ReadonlyArray<{ readonly id: string }>) => [...list].sort((a, b) => (a.id < b.id ? -1 : 1))
        assert.deepStrictEqual(
          byId(next.running),
          byId(runs.map((run, at) => ({ ...run, ...starts[at], state: "running" as const })))
        )
        assert.deepStrictEqual(yield* find(other.partitionId, foreign.id), foreign)
        assert.deepStrictEqual(byId((yield* takePartition(partition)).running), byId(next.running))
      }))

    it.effect("prefers what was written of a run after the start in a roll, and the last start", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const [marked, waits, ended, twice, lost] = yield* Effect.all([1, 2, 3, 4, 5].map((seq) => sampleRun({ seq })))
        const start = (run: { readonly id: RunId }, lease: number) => (
          { id: run.id, attempt: lease, lease, worker: "worker-1", startedAt: 1_700_000_000_900 }
        )
        yield* commit(owner, { inserts: [marked!, waits!, ended!, twice!, lost!] })
        yield* commit(owner, {
          roll: { slot: 0, starts: [marked!, waits!, ended!, twice!, lost!].map((run) => start(run, 5)) }
        })
        yield* commit(owner, {
          updates: [
            updateOf(marked!, { state: "running", lease: 5, worker: "its own" }),
            updateOf(waits!, { state: "retrying", lease: 5, attempt: 5 }),
            updateOf(twice!, { lease: 5 }),
            updateOf(lost!, { lease: 5 })
          ],
          finishes: [finishOf(ended!)]
        })
        yield* commit(owner, { roll: { slot: 1, starts: [start(twice!, 6)] } })
        yield* commit(owner, { roll: { slot: 0, starts: [start(twice!, 7)] } })

        const { running } = yield* takePartition(partition)

        assert.sameDeepMembers(running.map(({ id, lease, worker }) => ({ id, lease, worker })), [
          { id: marked!.id, lease: 5, worker: "its own" },
          { id: twice!.id, lease: 7, worker: "worker-1" }
        ])
        assert.strictEqual((yield* find(owner.partitionId, waits!.id))?.state, "retrying")
        assert.strictEqual((yield* find(owner.partitionId, lost!.id))?.state, "ready")
        assert.isUndefined(yield* find(owner.partitionId, ended!.id))
      }))

    it.effect("takes no roll of an owner that was replaced", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const old = yield* takePartition(partition)
        const run = yield* sampleRun()
        yield* commit(old, { inserts: [run] })
        yield* takePartition(partition)
        const start = { id: run.id, attempt: 1, lease: 1, worker: "worker-1", startedAt: 1_700_000_000_900 }

        const error = yield* Effect.flip(commit(old, { roll: { slot: 0, starts: [start] } }))

        assert.strictEqual(error._tag, "Fenced")
        assert.deepStrictEqual((yield* takePartition(partition)).running, [])
      }))

    it.effect("applies the batches of one actor in the order given, also when handed over together", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [run, gone] = yield* Effect.all([sampleRun({ seq: 1 }), sampleRun({ seq: 2 })])

        yield* Effect.all([
          commit(owner, { inserts: [run, gone] }),
          commit(owner, { updates: [updateOf(run, { attempt: 1 }), updateOf(gone, { attempt: 1 })] }),
          commit(owner, { updates: [updateOf(run, { attempt: 2 })], finishes: [finishOf(gone)] }),
          commit(owner, { updates: [updateOf(run, { attempt: 3 }), updateOf(gone, { attempt: 3 })] })
        ], { concurrency: "unbounded" })

        assert.strictEqual((yield* find(owner.partitionId, run.id))?.attempt, 3)
        assert.isUndefined(yield* find(owner.partitionId, gone.id))
      }))

    it.effect("may be given the same batch again", () =>
      Effect.gen(function*() {
        const owner = yield* takePartition()
        const [made, changed, ended] = yield* Effect.all([1, 2, 3].map((seq) => sampleRun({ seq })))
        yield* commit(owner, { inserts: [changed!, ended!] })
        const change = {
          inserts: [made!],
          updates: [updateOf(changed!, { state: "running", attempt: 1 })],
          finishes: [finishOf(ended!)]
        } as const
        yield* commit(owner, change)

        const { duplicates } = yield* commit(owner, change)

        assert.strictEqual(duplicates.size, 0)
        assert.deepStrictEqual(yield* find(owner.partitionId, made!.id), made)
        assert.strictEqual((yield* find(owner.partitionId, changed!.id))?.attempt, 1)
        assert.isUndefined(yield* find(owner.partitionId, ended!.id))
      }))

    it.effect("commits an empty batch, which tells whether the partition is still owned", () =>
      Effect.gen(function*() {
        const partition = samplePartition()
        const old = yield* takePartition(partition)
        yield* commit(old, {})
        yield* takePartition(partition)

        const error = yield* Effect.flip(commit(old, {}))

        assert.strictEqual(error._tag, "Fenced")
      }))
  })
