import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8")

describe("README.md", () => {
  it("shows the program of quick-start.ts, of at most 25 lines", () => {
    const shown = /```ts\n([\s\S]*?)```/.exec(read("README.md"))?.[1] ?? ""

    assert.strictEqual(shown, read("packages/examples/src/quick-start.ts"))
    assert.isAtMost(shown.trimEnd().split("\n").length, 25)
  })
})

describe("docs/testing.md", () => {
  it("shows the test of orders.test.ts", () => {
    assert.include(read("docs/testing.md"), read("packages/examples/test/orders.test.ts"))
  })
})
