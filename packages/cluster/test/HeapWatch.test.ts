import { assert, it } from "@effect/vitest"
import { make } from "../src/HeapWatch.js"

it("refuses while the heap is nearly full, and looks no more often than it must", () => {
  let now = 0
  let looks = 0
  let usedBytes = 50
  const watch = make(90, () => {
    looks += 1
    return { usedBytes, limitBytes: 100 }
  }, () => now)

  assert.isUndefined(watch.overload())
  usedBytes = 95
  assert.isUndefined(watch.overload())
  assert.strictEqual(looks, 1)
  now += 100
  const refusal = watch.overload()
  assert.deepInclude(refusal, { _tag: "Overloaded", what: "bytes of heap", limit: 90, actual: 95 })
  assert.isAbove(refusal!.retryAfterMs, 0)
  usedBytes = 60
  now += 100
  assert.isUndefined(watch.overload())
  assert.strictEqual(watch.usedPercent(), 60)
})
