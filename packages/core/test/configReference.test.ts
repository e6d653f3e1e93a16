import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { page, render } from "../../../scripts/configReference.js"

describe("docs/configuration.md", () => {
  it("is what the tables of settings say (renew: node --import tsx scripts/configReference.ts)", () => {
    assert.strictEqual(readFileSync(page, "utf8"), render())
  })
})
