import { assert, describe, it } from "@effect/vitest"
import * as Failpoint from "@orrery/core/Failpoint"
import type { JournalBatch, RunUpdate } from "@orrery/core/Journal"
import { ConfigProvider, Effect } from "effect"

const reached = (use: () => void): ReadonlyArray<string> => {
  const seen: Array<string> = []
  const disarm = Failpoint.arm((name) => seen.push(name))
  use()
  disarm()
  return seen
}

const batchOf = (parts: Partial<JournalBatch>): JournalBatch => ({
  partitionId: 1,
  epoch: 1,
  inserts: [],
  updates: [],
  finishes: [],
  ...parts
})
const updateTo = (state: RunUpdate["state"]) => ({ state }) as RunUpdate

describe("Failpoint", () => {
  it("does nothing until it is armed, and after it was disarmed", () => {
    Failpoint.failpoint("finish.before-commit")
    assert.deepStrictEqual(reached(() => Failpoint.failpoint("finish.before-commit")), ["finish.before-commit"])
    Failpoint.failpoint("finish.before-commit")
  })

  it("names each kind of change in a batch once", () => {
    const updates = ["running", "retrying", "ready", "ready"] as const
    const batch = batchOf({ inserts: [{} as never], updates: updates.map(updateTo), finishes: [{} as never] })

    assert.deepStrictEqual(
      reached(() => Failpoint.failpointsOf(batch, "after-commit")),
      ["enqueue", "start", "retry", "requeue", "finish"].map((kind) => `${kind}.after-commit`)
    )
    assert.deepStrictEqual(reached(() => Failpoint.failpointsOf(batchOf({}), "before-commit")), [])
  })

  const read = (value: string | undefined, die: (name: string) => void) =>
    Failpoint.armFromConfig(die).pipe(
      Effect.withConfigProvider(
        ConfigProvider.fromMap(new Map(value === undefined ? [] : [["ORRERY_FAILPOINT", value]]), { pathDelim: "_" })
      )
    )

  it.effect("is armed by the environment for the n-th time", () =>
    Effect.gen(function*() {
      const died: Array<string> = []
      yield* read("take-over.after-commit@2", (name) => died.push(name))

      Failpoint.failpoint("take-over.after-commit")
      Failpoint.failpoint("finish.after-commit")
      assert.deepStrictEqual(died, [])
      Failpoint.failpoint("take-over.after-commit")
      assert.deepStrictEqual(died, ["take-over.after-commit"])
      Failpoint.arm(() => undefined)()
    }))

  it.effect("says what it knows when it cannot be read", () =>
    Effect.gen(function*() {
      yield* read(undefined, () => assert.fail("nobody asked for it"))
      Failpoint.failpoint("take-over.after-commit")
      for (const wrong of ["finish", "finish.after-commit@0", "finish.after-commit@x", ""]) {
        const error = yield* Effect.flip(read(wrong, () => undefined))
        assert.include(error.message, "ORRERY_FAILPOINT")
        for (const name of Failpoint.names) assert.include(error.message, name)
      }
    }))
})
