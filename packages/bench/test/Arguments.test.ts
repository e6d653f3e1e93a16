import { assert, describe, it } from "@effect/vitest"
import { Either } from "effect"
import { systemsOf, workloadsOf } from "../src/Arguments.js"
import { quickWorkloads, usualWorkloads, workloads } from "../src/workloads/index.js"

const ids = <A extends { readonly id: string }, E>(found: Either.Either<ReadonlyArray<A>, E>) =>
  Either.getOrThrow(found).map(({ id }) => id)

const lineOf = <A, E extends { readonly message: string }>(found: Either.Either<A, E>) =>
  Either.getOrThrow(Either.flip(found)).message

describe("Arguments", () => {
  it("takes workloads by name, whatever their case, in the order of the list", () => {
    assert.deepStrictEqual(ids(workloadsOf(["w3", "W1"], workloads, usualWorkloads)), ["W1", "W3"])
  })

  it("takes the usual workloads when none is named", () => {
    assert.deepStrictEqual(ids(workloadsOf([], workloads, quickWorkloads)), ["W1", "W2", "W3", "W5"])
    assert.notInclude(ids(workloadsOf([], workloads, usualWorkloads)), "scale")
  })

  it("names an unknown workload, and the known ones, in one line", () => {
    const line = lineOf(workloadsOf(["W99"], workloads, usualWorkloads))

    assert.match(line, /^bench: no workload "W99"; there are W1, W2, /)
    assert.notInclude(line, "\n")
  })

  it("tells a flag from a workload", () => {
    assert.match(lineOf(workloadsOf(["--perrs"], workloads, usualWorkloads)), /^bench: no flag --perrs/)
  })

  it("compares with all by default, with a few when quick, and always with ours", () => {
    assert.includeMembers(ids(systemsOf(undefined, false)), ["orrery:default", "dbos:tuned", "bullmq:aofAlways"])
    assert.notInclude(ids(systemsOf(undefined, true)), "dbos:tuned")
    assert.deepStrictEqual(ids(systemsOf("none", false)), ["orrery:default"])
  })

  it("takes a variant, or a peer with all of its variants", () => {
    assert.deepStrictEqual(ids(systemsOf("pgboss, bullmq:aof", false)), [
      "orrery:default",
      "pgboss:tuned",
      "pgboss:lowlat",
      "bullmq:aof"
    ])
  })

  it("names an unknown system in one line", () => {
    const line = lineOf(systemsOf("graphile:batch,celery", true))

    assert.match(line, /^bench: no system "celery"; there are all, none, orrery:default, /)
    assert.notInclude(line, "\n")
  })
})
