import { assert, describe, it } from "@effect/vitest"
import * as BenchPostgres from "../src/BenchPostgres.js"
import * as BenchRedis from "../src/BenchRedis.js"

const durable = { fsync: "on", synchronous_commit: "on", full_page_writes: "on", server_version: "18.4" }

describe("durability", () => {
  it("finds nothing wrong with a server that keeps every commit", () => {
    assert.deepStrictEqual(BenchPostgres.durabilityProblems(durable), [])
    // More than is asked for.
    assert.deepStrictEqual(BenchPostgres.durabilityProblems({ ...durable, synchronous_commit: "remote_apply" }), [])
  })

  it("names each setting that may lose a commit", () => {
    assert.deepStrictEqual(BenchPostgres.durabilityProblems({ ...durable, fsync: "off", synchronous_commit: "off" }), [
      "fsync = off (must be on)",
      "synchronous_commit = off (must be on)"
    ])
  })

  it("refuses in one line that says it is not compared", () => {
    const refusal = new BenchPostgres.UnequalDurability({ store: "PostgreSQL 18.4", problems: ["fsync = off"] })

    assert.match(refusal.message, /^unequal durability: PostgreSQL 18\.4 has fsync = off; .* not compared$/)
  })

  it("asks of Redis what the system promises, and takes more", () => {
    const found = { appendonly: "yes", appendfsync: "everysec" }

    assert.deepStrictEqual(BenchRedis.durabilityProblems("everysec", found), [])
    assert.deepStrictEqual(BenchRedis.durabilityProblems("everysec", { ...found, appendfsync: "always" }), [])
    assert.deepStrictEqual(BenchRedis.durabilityProblems("always", found), ["appendfsync everysec (must be always)"])
    assert.deepStrictEqual(BenchRedis.durabilityProblems("everysec", { appendonly: "no", appendfsync: "no" }), [
      "appendonly no (must be yes)",
      "appendfsync no (must be everysec)"
    ])
  })
})
