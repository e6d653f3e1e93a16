/** PostgreSQL and the store in memory, given the same random batches, must give the same answers. */
import { assert, it } from "@effect/vitest"
import { type FinalState, RunState } from "@orrery/core/RunState"
import { Journal, type StoredRun } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { RunReader } from "@orrery/core/RunReader"
import { batchOf, finishOf, newRunId, samplePartition, sampleRun, updateOf } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Context, Effect, FastCheck, Layer } from "effect"

const partitions = 3
const runsMax = 8
/** Histories at a time: each waits for the database most of the time, and finds its batches in statements with those of others. */
const sideBySide = 5

/** What becomes of one of a few runs in a batch. */
const change = FastCheck.record({
  run: FastCheck.nat(runsMax - 1),
  kind: FastCheck.constantFrom("insert", "update", "finish", "start"),
  state: FastCheck.constantFrom<StoredRun["state"]>("ready", "scheduled", "retrying", "running"),
  final: FastCheck.constantFrom<FinalState>("succeeded", "failed", "cancelled", "expired"),
  at: FastCheck.double({ min: 0, max: 1e12, noNaN: true }),
  key: FastCheck.nat(3),
  task: FastCheck.constantFrom("a", "b"),
  text: FastCheck.string({ maxLength: 12 }).map((text) => JSON.stringify(text)),
  attempt: FastCheck.nat(9)
})
type Change = typeof change extends FastCheck.Arbitrary<infer A> ? A : never

const step = FastCheck.record({
  partition: FastCheck.nat(partitions - 1),
  takeOver: FastCheck.boolean(),
  /** Hand in the batch of an owner before. */
  stale: FastCheck.nat(7).map((n) => n === 0),
  twice: FastCheck.nat(4).map((n) => n === 0),
  slot: FastCheck.nat(1),
  changes: FastCheck.uniqueArray(change, { maxLength: 6, selector: (each) => each.run })
})
type Step = typeof step extends FastCheck.Arbitrary<infer A> ? A : never

type Services = Context.Context<Journal | PartitionStore | RunReader>

/** Plays the steps and tells all that can be seen. */
const play = Effect.fnUntraced(
  function*(services: Services, steps: ReadonlyArray<Step>, ids: ReadonlyArray<StoredRun>) {
    const journal = Context.get(services, Journal)
    const store = Context.get(services, PartitionStore)
    const reader = Context.get(services, RunReader)
    const names = Array.from(
      { length: partitions },
      (_, partition) => samplePartition({ namespace: ids[0]!.id, partition })
    )
    const owners = yield* Effect.forEach(names, (name) => store.takeOver(name, "model"))
    const answers: Array<unknown> = []
    let seq = 0
    for (const { changes, partition, slot, stale, takeOver, twice } of steps) {
      if (takeOver) {
        const taken = yield* store.takeOver(names[partition]!, "model")
        answers.push([[...taken.lines].sort(), taken.hasTimers, sorted(taken.running), taken.epoch])
        owners[partition] = taken
      }
      const owner = owners[partition]!
      const runs = changes.map((each) => ({ ...runOf(ids[each.run]!, each), seq: seq++ }))
      const those = (kind: Change["kind"]) =>
        changes.flatMap((each, at) => each.kind === kind ? [{ each, run: runs[at]! }] : [])
      const starts = those("start").map(({ each, run }) => ({
        id: run.id,
        attempt: run.attempt,
        lease: run.lease,
        worker: each.text,
        startedAt: each.at
      }))
      const batch = batchOf({ partitionId: owner.partitionId, epoch: stale ? owner.epoch - 1 : owner.epoch }, {
        inserts: those("insert").map(({ run }) => run),
        updates: those("update").map(({ run }) => updateOf(run)),
        finishes: those("finish").map(({ each, run }) =>
          finishOf(run, {
            state: each.final,
            result: each.text,
            attempt: each.attempt,
            worker: null,
            startedAt: each.at
          })
        ),
        ...starts.length === 0 ? {} : { roll: { slot, starts } }
      })
      for (let time = 0; time < (twice ? 2 : 1); time++) {
        const answer = yield* Effect.either(journal.commit(batch))
        answers.push(answer._tag === "Left" ? answer.left._tag : [...answer.right.duplicates].sort())
      }
    }
    for (const { partitionId } of owners) {
      const all = { partitionId, afterKey: -Infinity, afterSeq: -Infinity, limit: 100, bytesMax: 1e9 }
      answers.push(yield* store.readLines([{ ...all, line: "a" }]), yield* store.readLines([{ ...all, line: "b" }]))
      answers.push(yield* store.readTimers(all), yield* store.readLines([{ ...all, line: "a", limit: 2 }]))
      answers.push(yield* Effect.forEach(ids, ({ id }) => store.findRun(partitionId, id)))
    }
    const withoutEnd = <A extends { readonly finishedAt: number | null }>(run: A | undefined) =>
      run && { ...run, finishedAt: run.finishedAt !== null }
    answers.push(yield* Effect.forEach(ids, ({ id }) => Effect.map(reader.find(id), withoutEnd)))
    for (const state of [undefined, ...RunState.literals]) {
      const listed = yield* reader.list({ namespace: ids[0]!.id, limit: 5, ...(state === undefined ? {} : { state }) })
      answers.push([state, listed.map(withoutEnd)])
    }
    const work = yield* store.listWithWork([])
    answers.push(work.filter((each) => each.namespace === ids[0]!.id).map((each) => each.partition).sort())
    return answers
  }
)

const sorted = (runs: ReadonlyArray<StoredRun>) => [...runs].sort((a, b) => a.seq - b.seq)

const runOf = (run: StoredRun, { at, attempt, key, state, task, text }: Change): StoredRun => ({
  ...run,
  task,
  state,
  payload: text,
  scheduledAt: at,
  orderKey: key,
  attempt,
  crashes: attempt % 3,
  lease: attempt * 2 ** 30,
  worker: attempt > 5 ? text : null,
  startedAt: attempt > 4 ? at + 0.5 : null
})

it.scopedLive("answers like the store in memory, whatever the batches", () =>
  Effect.gen(function*() {
    const postgres = yield* Layer.build(TestStore.layer)

    const histories = Effect.promise(() =>
      FastCheck.assert(
        // As many steps as 150 histories of 20 at most, and fewer looks at all there is, which take longest.
        FastCheck.asyncProperty(FastCheck.array(step, { maxLength: 60 }), (steps) =>
          Effect.runPromise(Effect.gen(function*() {
            const ids = yield* Effect.all(Array.from({ length: runsMax }, () =>
              Effect.flatMap(newRunId, (id) => sampleRun({ id }))))

            const expected = yield* play(yield* MemoryStore.make(), steps, ids)
            const actual = yield* play(postgres, steps, ids)

            actual.forEach((each, at) =>
              assert.deepStrictEqual(each, expected[at], `answer ${at}`)
            )
          }))),
        { numRuns: 50 / sideBySide }
      )
    )
    yield* Effect.replicateEffect(histories, sideBySide, { concurrency: sideBySide, discard: true })
  }))
