import { assert, describe, it } from "@effect/vitest"
import { findings } from "../../../scripts/tidy.ts"

const rulesOf = (files: Readonly<Record<string, string>>) =>
  findings(new Map(Object.entries(files))).map(({ line, path, rule }) => `${path}:${line} ${rule}`)

const decision = (headings: ReadonlyArray<string>) =>
  ["# 0001 X", "Status: accepted 2026-11-23", ...headings.map((heading) => `## ${heading}`)].join("\n")

describe("tidy", () => {
  it("accepts a clean tree", () => {
    const found = rulesOf({
      "package.json": `{ "devDependencies": { "effect": "catalog:" } }`,
      ".gitignore": "node_modules/",
      "docs/decisions/0001-x.md": decision(["Context", "Options", "Decision", "Evidence", "Consequences"]),
      "packages/cluster/README.md": "# cluster",
      "packages/cluster/package.json": `{ "dependencies": { "@orrery/core": "workspace:*", "effect": "catalog:" } }`,
      "packages/cluster/src/OrreryNode.ts": `import * as PgJournal from "@orrery/store-pg/PgJournal"`,
      "packages/cluster/src/Queue.ts": "// Math.random would do, says nobody\nconst a = 1 // TODO(#12): b"
    })

    assert.deepStrictEqual(found, [])
  })

  it("lets dependencies point to core only", () => {
    const found = rulesOf({
      "packages/core/src/A.ts": `import { X } from "@orrery/api/X"`,
      "packages/store-pg/src/A.ts": `import { X } from "@orrery/core"\nimport { Y } from "@orrery/cluster"`,
      "packages/cluster/src/A.ts": `import { X } from "@orrery/store-pg"`,
      "packages/api/src/A.ts": `import { X } from "@orrery/api/B"`,
      "packages/api/test/A.test.ts": `import { X } from "@orrery/testing/B"`,
      "packages/cli/src/A.ts": `import { X } from "@orrery/store-pg"`
    })

    assert.deepStrictEqual(found, [
      "packages/api/src/A.ts:1 imports",
      "packages/cluster/src/A.ts:1 imports",
      "packages/core/src/A.ts:1 imports",
      "packages/store-pg/src/A.ts:2 imports"
    ])
  })

  it("sees what a line may not hold, in code and with its line number", () => {
    const code = [
      "const a = Math.random()",
      "const b = process.env.HOME",
      "setTimeout(() => {}, 1)",
      "const c = Date.now()",
      "console.log(1)",
      "it.only(\"x\", () => {})",
      "it.effect.skip(\"x\", () => {})",
      "flakyTest(a)",
      "it.effect(\"x\", a, { retry: 2 })",
      "Effect.forkDaemon(a)",
      "Queue.unbounded()",
      "// TODO later"
    ].join("\n")

    assert.deepStrictEqual(
      rulesOf({ "packages/core/src/A.ts": code }),
      [
        "random",
        "environment",
        "timer",
        "clock",
        "console",
        "only",
        "skip",
        "flaky",
        "flaky",
        "daemon",
        "unbounded",
        "todo"
      ].map((rule, index) => `packages/core/src/A.ts:${index + 1} ${rule}`)
    )
    assert.deepStrictEqual(rulesOf({ "packages/bench/src/A.ts": code.split("\n").slice(0, 5).join("\n") }), [])
  })

  it("keeps passwords, machines and registries out of every text", () => {
    const found = rulesOf({
      "docs/a.md": [
        "postgres://orrery:hunter2@db/orrery",
        "postgres://orrery:<password>@db/orrery",
        "see /work/other/file.ts",
        "https://example.com/work/file",
        "http://registry.corp.example/npm",
        "https://registry.npmjs.org/effect"
      ].join("\n"),
      "packages/core/src/A.ts": "const url = `postgres://orrery:${password}@${host}`"
    })

    assert.deepStrictEqual(found, ["docs/a.md:1 credentials", "docs/a.md:3 machine", "docs/a.md:5 registry"])
  })

  it("holds files to their size, name and place", () => {
    const found = rulesOf({
      "eslint.config.mjs": "",
      "packages/core/src/A.ts": "a\n".repeat(501),
      "packages/core/test/A.test.ts": "a\n".repeat(800),
      "packages/core/test/B.test.ts": "a\n".repeat(801),
      "packages/core/src/utils.ts": "",
      "packages/core/src/services/Runs.ts": "",
      "packages/core/src/Commonwealth.ts": ""
    })

    assert.deepStrictEqual(found, [
      "eslint.config.mjs:1 top-level",
      "packages/core/src/A.ts:500 size",
      "packages/core/src/services/Runs.ts:1 name",
      "packages/core/src/utils.ts:1 name",
      "packages/core/test/B.test.ts:800 size"
    ])
  })

  it("asks for a README, catalog versions and whole decisions", () => {
    const found = rulesOf({
      "packages/core/package.json": `{\n  "dependencies": {\n    "effect": "^3.0.0"\n  }\n}`,
      "docs/decisions/0001-x.md": decision(["Context", "Options", "Decision", "Consequences"])
    })

    assert.deepStrictEqual(found, [
      "docs/decisions/0001-x.md:1 decision",
      "packages/core/package.json:1 readme",
      "packages/core/package.json:3 versions"
    ])
  })
})
