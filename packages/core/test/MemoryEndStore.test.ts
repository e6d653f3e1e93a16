import { assert, describe, it } from "@effect/vitest"
import { endStoreContract } from "@orrery/testing/endStoreContract"
import { runIdMadeAt } from "@orrery/testing/storeSamples"
import { Effect } from "effect"
import * as MemoryEndStore from "../src/MemoryEndStore.js"

endStoreContract("memory", MemoryEndStore.layer)

describe("MemoryEndStore", () => {
  it.effect("holds no more than it may: the oldest go first", () =>
    Effect.gen(function*() {
      const store = yield* MemoryEndStore.make(100)
      const ids = [1, 2, 3].map((n) => runIdMadeAt(n))

      for (const id of ids) store.put(id, "x".repeat(40), 1_000)

      assert.deepStrictEqual(
        (yield* Effect.forEach(ids, (id) => store.get(id))).map((text) => text?.length),
        [undefined, 40, 40]
      )
    }))
})
