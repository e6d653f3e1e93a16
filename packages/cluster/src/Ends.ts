/** The cache of ends of a process that knows the database: its key is a row there, made by whoever comes first. */
import { SqlClient } from "@effect/sql"
import * as EndCache from "@orrery/core/EndCache"
import * as EndStore from "@orrery/core/EndStore"
import { Effect, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { endKeySetting } from "./DatabaseRecord.js"

const keyBytes = 32

const readKey = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const read = sql<{ value: string }>`
    select value #>> '{}' as value from orrery.cluster_settings where key = ${endKeySetting}`
  let [row] = yield* read
  if (row === undefined) {
    const made = randomBytes(keyBytes).toString("base64url")
    yield* sql`insert into orrery.cluster_settings (key, value) values (${endKeySetting}, to_jsonb(${made}::text))
      on conflict (key) do nothing`
    const [first] = yield* read
    row = first
  }
  return Buffer.from(row?.value ?? "", "base64url")
})

/** Without an `EndStore`, or without a key, every end is read from the rows, and nothing is asked here. */
const make = Effect.gen(function*() {
  const store = yield* EndStore.EndStore
  if (store === EndStore.none) return EndCache.none
  const key = yield* readKey
  if (key.length !== keyBytes) {
    yield* Effect.logWarning(`the key of the cache of ends is ${key.length} bytes: it is not used`)
    return EndCache.none
  }
  return yield* EndCache.make(store, Redacted.make(key))
}).pipe(
  Effect.catchTag(
    "SqlError",
    (error) => Effect.as(Effect.logWarning("no cache of ends: its key could not be read", error), EndCache.none)
  )
)

export const layer: Layer.Layer<EndCache.EndCache, never, SqlClient.SqlClient> = Layer.effect(EndCache.EndCache, make)
