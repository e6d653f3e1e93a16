/** A node that is the whole cluster, and stops while the database is slow. */
import type { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import * as Handlers from "@orrery/core/Handlers"
import * as NodeConfig from "@orrery/core/NodeConfig"
import { Runs } from "@orrery/core/Runs"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import * as OrreryNode from "../src/OrreryNode.js"
import { name, request, until } from "./actorRig.js"

/** Nobody commits to any partition until the latch is opened. */
const holdCommits = (sql: SqlClient.SqlClient, mayGo: Effect.Latch) =>
  Effect.gen(function*() {
    const isHeld = yield* Effect.makeLatch(false)
    yield* Effect.forkScoped(sql.withTransaction(
      sql`select 1 from orrery.partitions for update`.pipe(Effect.zipRight(isHeld.open), Effect.zipRight(mayGo.await))
    ))
    yield* isHeld.await
  })

/** Polls of the members in the time that it is made to take would be two. */
const linesMax = 3
const stopsForMs = 700

it.scopedLive("a node alone stops in silence, however long its actors take to end", () =>
  Effect.gen(function*() {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => void lines.push(String(message)))
    const databaseUrl = yield* TestPostgres.freshDatabase
    const database = yield* Layer.build(PgClient.layer({ url: databaseUrl }))
    const mayGo = yield* Effect.makeLatch(false)
    const scope = yield* Scope.make()
    const node = yield* Layer.buildWithScope(
      OrreryNode.layer.pipe(
        Layer.provide([Handlers.layer, NodeConfig.layerAll({ databaseUrl })]),
        Layer.provide(Logger.replace(Logger.defaultLogger, logger))
      ),
      scope
    )
    const runs = Context.get(node, Runs)
    yield* runs.enqueueMany([request()])
    const { residents } = Context.get(node, OrreryNode.OrreryNode)
    yield* holdCommits(Context.get(database, PgClient.PgClient), mayGo)
    yield* Effect.fork(runs.enqueueMany([request()]))
    yield* until(() => residents.find(name)?.isWritten === false)
    const before = lines.length

    const stopping = yield* Effect.fork(Scope.close(scope, Exit.void))
    yield* Effect.sleep(stopsForMs)
    const isStopping = (yield* Fiber.poll(stopping))._tag === "None"
    yield* mayGo.open
    yield* Fiber.join(stopping)

    assert.isTrue(isStopping)
    assert.isAtMost(lines.length - before, linesMax, lines.slice(before, before + 5).join("\n"))
  }), 60_000)
