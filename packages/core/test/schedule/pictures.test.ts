import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { folder, render } from "../../../../scripts/schedulePictures.js"

describe("docs/schedules", () => {
  it("shows what the machine does (renew: node --import tsx scripts/schedulePictures.ts)", () => {
    for (const [name, content] of render()) assert.strictEqual(readFileSync(folder + name, "utf8"), content)
  })
})
