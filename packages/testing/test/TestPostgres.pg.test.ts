import { assert, describe, it } from "@effect/vitest"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Effect, Redacted } from "effect"
import pg from "pg"

const rows = (url: Redacted.Redacted<string>, sql: string) =>
  Effect.promise(async () => {
    const client = new pg.Client({ connectionString: Redacted.value(url) })
    await client.connect()
    const result = await client.query<Record<string, unknown>>(sql)
    await client.end()
    return result.rows
  })

describe("TestPostgres", () => {
  it.scopedLive("gives each test an empty database of its own and drops it afterwards", () =>
    Effect.gen(function*() {
      const [gone, other] = yield* Effect.scoped(Effect.gen(function*() {
        const first = yield* TestPostgres.freshDatabase
        const second = yield* TestPostgres.freshDatabase
        yield* rows(first, "create table only_here (n int)")
        assert.deepStrictEqual(yield* rows(second, "select to_regclass('only_here') as found"), [{ found: null }])
        return [first, second] as const
      }))

      const names = [gone, other].map((url) => new URL(Redacted.value(url)).pathname.slice(1))
      const left = yield* rows(yield* TestPostgres.adminUrl, "select datname from pg_database")

      assert.isTrue(left.every(({ datname }) => !names.includes(String(datname))))
    }))
})
