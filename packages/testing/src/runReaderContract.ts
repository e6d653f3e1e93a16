import { assert, layer } from "@effect/vitest"
import { Journal, type StoredRun } from "@orrery/core/Journal"
import type { PartitionName, PartitionStore } from "@orrery/core/PartitionStore"
import type { RunId } from "@orrery/core/RunId"
import { RunReader } from "@orrery/core/RunReader"
import { listBytesMax } from "@orrery/core/Runs"
import { Effect, type Layer } from "effect"
import { batchOf, finishOf, newRunId, samplePartition, sampleRun, takePartition, updateOf } from "./storeSamples.js"

const hour = 3_600_000

/** What every `RunReader` must show of what the `Journal` of the same store has written. */
export const runReaderContract = (
  name: string,
  store: Layer.Layer<Journal | PartitionStore | RunReader, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`RunReader contract: ${name}`, (it) => {
    const insert = (partition: PartitionName, fields: ReadonlyArray<Partial<StoredRun>>) =>
      Effect.gen(function*() {
        const journal = yield* Journal
        const owner = yield* takePartition(partition)
        // One after the other: ids grow.
        const runs = yield* Effect.forEach(fields, (each, at) => sampleRun({ seq: at + 1, ...each }))
        yield* journal.commit(batchOf(owner, { inserts: runs }))
        return { owner, runs }
      })

    it.effect("shows a run from its insert to its end", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const journal = yield* Journal
        const partition = samplePartition({ partition: 3 })
        const { owner, runs: [run] } = yield* insert(partition, [{ priority: 2 }])
        const failure = {
          kind: "failure",
          tag: "Bounced",
          message: "no such box",
          error: `{"_tag":"Bounced"}`
        } as const
        const shown = {
          id: run!.id,
          ...partition,
          task: "mail.send",
          priority: 2,
          createdAt: run!.createdAt,
          scheduledAt: run!.scheduledAt,
          payload: run!.payload,
          waitsFor: null
        }

        const ready = yield* reader.find(run!.id)
        const started = { state: "running", attempt: 1, worker: "worker-1", startedAt: 1_700_000_000_500 } as const
        yield* journal.commit(batchOf(owner, { updates: [updateOf(run!, started)] }))
        const running = yield* reader.find(run!.id)
        yield* journal.commit(batchOf(owner, {
          finishes: [finishOf(run!, { state: "failed", result: null, failure: JSON.stringify(failure) })]
        }))
        const failed = yield* reader.find(run!.id)

        const open = { finishedAt: null, result: null, failure: null }
        assert.deepStrictEqual(ready, { ...shown, ...open, state: "ready", attempt: 0, worker: null, startedAt: null })
        assert.deepStrictEqual(running, { ...shown, ...open, ...started })
        assert.isNumber(failed?.finishedAt)
        assert.deepStrictEqual(failed, {
          ...shown,
          ...started,
          state: "failed",
          finishedAt: failed!.finishedAt,
          result: null,
          failure
        })
      }))

    it.effect("shows the version of a payload apart from the name of its task, and finds all versions by the name", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const journal = yield* Journal
        const task = "versions.of"
        const { owner, runs: [first, second] } = yield* insert(samplePartition(), [
          { task },
          { task: `${task}@12` },
          { task: `${task}.other` }
        ])
        yield* journal.commit(batchOf(owner, { finishes: [finishOf(second!, { result: "1" })] }))

        const found = yield* reader.list({ task, limit: 10 })

        assert.deepStrictEqual(found.map((run) => [run.id, run.task, run.version]), [
          [second!.id, task, 12],
          [first!.id, task, undefined]
        ])
        assert.strictEqual((yield* reader.find(second!.id))?.version, 12)
      }))

    it.effect("shows the result of a run that succeeded", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const journal = yield* Journal
        const { owner, runs: [run] } = yield* insert(samplePartition(), [{}])

        yield* journal.commit(batchOf(owner, { finishes: [finishOf(run!, { result: `{"sent":2}` })] }))

        const final = yield* reader.find(run!.id)
        assert.deepStrictEqual([final?.state, final?.result, final?.failure], ["succeeded", `{"sent":2}`, null])
      }))

    it.effect("finds a final run with all that it was told, and shows of a redrive what it was made of", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const journal = yield* Journal
        const told = { policy: `{"retry":null,"timeoutMs":7}`, keys: `{"tenant":"acme"}` }
        const { owner, runs: [run, plain] } = yield* insert(samplePartition(), [told, {}])
        const again = yield* sampleRun({ seq: 3 })
        const failure = JSON.stringify({ kind: "failure", tag: "Bounced", message: "", fingerprint: "0123" })
        const end = { state: "failed", result: null, failure } as const

        const before = yield* reader.findFinal(run!.id)
        yield* journal.commit(batchOf(owner, { finishes: [finishOf(run!, end), finishOf(plain!, end)] }))
        const redrives = [{ run: again, origin: run!.id }]
        const first = yield* journal.commit(batchOf(owner, { redrives }))
        const second = yield* journal.commit(
          batchOf(owner, { redrives: [{ ...redrives[0]!, run: { ...again, seq: 4 } }] })
        )
        const waiting = yield* reader.find(again.id)
        yield* journal.commit(batchOf(owner, { finishes: [finishOf(again, end)] }))
        const third = yield* journal.commit(
          batchOf(owner, { redrives: [{ ...redrives[0]!, run: { ...again, seq: 5 } }] })
        )

        const found = yield* reader.findFinal(run!.id)
        assert.isUndefined(before)
        assert.deepStrictEqual([found?.policy, found?.keys], [told.policy, told.keys])
        assert.deepStrictEqual(found?.run, yield* reader.find(run!.id))
        assert.strictEqual(found?.run.failure?.fingerprint, "0123")
        assert.isNull((yield* reader.findFinal(plain!.id))?.keys)
        assert.deepStrictEqual([first, second, third].map(({ duplicates }) => duplicates.size), [0, 1, 1])
        assert.deepStrictEqual([waiting?.origin, waiting?.state], [run!.id, "ready"])
        const shown = yield* reader.find(again.id)
        assert.deepStrictEqual([shown?.origin, shown?.state], [run!.id, "failed"])
        assert.notProperty(yield* reader.find(plain!.id), "origin")
      }))

    it.effect("finds nothing under an unknown id", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader

        assert.isUndefined(yield* reader.find(yield* newRunId))
      }))

    it.effect("shows a waiting run as ready once its time has come", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const partition = samplePartition()
        const { namespace } = partition
        const { owner } = yield* insert(partition, [])
        const later = owner.now + hour
        const { runs } = yield* insert(partition, [
          { state: "scheduled", scheduledAt: owner.now - hour },
          { state: "retrying", scheduledAt: owner.now - hour },
          { state: "scheduled", scheduledAt: later },
          { state: "retrying", scheduledAt: later },
          { state: "ready" },
          { state: "running" }
        ])
        const expected = ["ready", "ready", "scheduled", "retrying", "ready", "running"] as const

        const found = yield* Effect.forEach(runs, (run) => reader.find(run.id))
        assert.deepStrictEqual(found.map((run) => run?.state), [...expected])
        for (const state of ["ready", "scheduled", "retrying", "running"] as const) {
          const listed = yield* reader.list({ namespace, state, limit: 10 })
          const those = runs.filter((_, at) => expected[at] === state)
          assert.deepStrictEqual(
            listed.map((run) => [run.id, run.state]),
            those.reverse().map((run) => [run.id, state])
          )
        }
      }))

    it.effect("lists runs of both kinds, newest first, page by page", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const journal = yield* Journal
        const partition = samplePartition()
        const { namespace } = partition
        const { owner, runs } = yield* insert(partition, Array.from({ length: 7 }, () => ({})))
        yield* journal.commit(batchOf(owner, { finishes: [runs[1]!, runs[4]!, runs[5]!].map((run) => finishOf(run)) }))
        const newestFirst = runs.map((run) => run.id).reverse()

        const first = yield* reader.list({ namespace, limit: 3 })
        const second = yield* reader.list({ namespace, limit: 3, before: first[2]!.id })
        const third = yield* reader.list({ namespace, limit: 3, before: second[2]!.id })

        assert.deepStrictEqual([first.length, second.length, third.length], [3, 3, 1])
        assert.deepStrictEqual([...first, ...second, ...third].map((run) => run.id), newestFirst)
      }))

    it.effect("ends a page early by bytes, but never before its first run", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const partition = samplePartition()
        const { namespace } = partition
        const payload = (bytes: number) => ({ payload: JSON.stringify("x".repeat(bytes - 2)) })
        const half = listBytesMax / 2
        const { runs } = yield* insert(partition, [
          payload(half),
          payload(half),
          payload(10),
          payload(listBytesMax + 1)
        ])
        const [a, b, c, d] = runs.map((run) => run.id)
        const page = (before?: RunId) =>
          Effect.map(
            reader.list({ namespace, limit: 10, ...(before === undefined ? {} : { before }) }),
            (found) => found.map((run) => run.id)
          )

        assert.deepStrictEqual(yield* page(), [d])
        assert.deepStrictEqual(yield* page(d), [c, b])
        assert.deepStrictEqual(yield* page(b), [a])
        assert.deepStrictEqual(yield* page(a), [])
      }))

    it.effect("lists by queue, task and final state", () =>
      Effect.gen(function*() {
        const reader = yield* RunReader
        const journal = yield* Journal
        const mail = samplePartition()
        const { namespace } = mail
        const { owner, runs: [a, b, c] } = yield* insert(mail, [{ task: "a" }, { task: "b" }, { task: "b" }])
        const { runs: [d] } = yield* insert({ ...mail, queue: "print" }, [{ task: "b" }])
        yield* journal.commit(batchOf(owner, {
          finishes: [finishOf(a!), finishOf(b!, { state: "cancelled" }), finishOf(c!, { state: "expired" })]
        }))
        const listed = (filter: Partial<Parameters<typeof reader.list>[0]>) =>
          Effect.map(reader.list({ namespace, limit: 10, ...filter }), (runs) => runs.map((run) => run.id))

        assert.deepStrictEqual(yield* listed({ queue: "print" }), [d!.id])
        assert.deepStrictEqual(yield* listed({ task: "b" }), [d!.id, c!.id, b!.id])
        assert.deepStrictEqual(yield* listed({ state: "succeeded" }), [a!.id])
        assert.deepStrictEqual(yield* listed({ state: "cancelled", task: "b" }), [b!.id])
        assert.deepStrictEqual(yield* listed({ state: "expired", queue: "print" }), [])
      }))
  })
