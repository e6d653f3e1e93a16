import { assert, layer } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { Effect } from "effect"
import { batchOf, finishOf, sampleRun, takePartition } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"

const turn = (n: number): Effect.Effect<void> => n === 0 ? Effect.void : Effect.async<void>((resume) => void setImmediate(() => resume(turn(n - 1))))

layer(TestStore.layer, { excludeTestServices: true, timeout: 60_000 })("race", (it) => {
  for (const kind of ["resends", "inserts"] as const) {
      it.effect(`${kind}`, () =>
        Effect.gen(function*() {
          const journal = yield* Journal
          const store = yield* PartitionStore
          let alive = 0
          for (let n = 0; n < 300; n++) {
            const owner = yield* takePartition()
            const run = yield* sampleRun({ seq: 1 })
            yield* journal.commit(batchOf(owner, { inserts: [run] }))
            yield* Effect.all([
              journal.commit(batchOf(owner, { finishes: [finishOf(run)] })),
              Effect.zipRight(turn(1 + n % 6), journal.commit(batchOf(owner, { [kind]: [{ ...run, seq: 2 }] })))
            ], { concurrency: 2 })
            if ((yield* store.findRun(owner.partitionId, run.id)) !== undefined) alive += 1
          }
          assert.strictEqual(alive, 0)
        }), 60000)
  }
})
