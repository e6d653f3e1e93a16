/** What a piece of work cost, per run: CPU of node and of PostgreSQL, statements, rows, bytes of WAL. */
import { Effect, Option } from "effect"
import * as BenchPostgres from "./BenchPostgres.js"
import type { Role, RoleFailed } from "./Role.js"
import type { Stage } from "./Stage.js"

export interface Cost {
  /** Of all role processes that took part, µs per run. */
  readonly nodeUs: number
  /** Of the server, µs per run; absent where its process cannot be seen. */
  readonly postgresUs?: number
  /** Of the whole server, bytes per run: background writes count too. */
  readonly walBytes?: number
  readonly statementsPer10k?: number
  readonly rowsPer10k?: number
}

export interface Mark {
  readonly nodeUs: number
  readonly server: Option.Option<BenchPostgres.ServerCounters>
}

/** Ended backends have told their numbers by then. */
const statisticsWithin = "500 millis"

const serverOf = (stage: Stage) =>
  Option.match(stage.database, {
    onNone: () => Effect.succeedNone,
    onSome: ({ name }) => Effect.asSome(BenchPostgres.counters(stage.bench.postgres, name))
  })

const nodeUsOf = (roles: ReadonlyArray<Role>): Effect.Effect<number, RoleFailed> =>
  Effect.map(
    Effect.forEach(roles, (role) => role.ask("usage", null)),
    (all) => all.reduce((sum, { cpuUs }) => sum + cpuUs, 0)
  )

export const mark = (
  stage: Stage,
  roles: ReadonlyArray<Role>
): Effect.Effect<Mark, RoleFailed | BenchPostgres.PostgresFailed> =>
  Effect.zipWith(nodeUsOf(roles), serverOf(stage), (nodeUs, server) => ({ nodeUs, server }))

export interface Span {
  readonly before: Mark
  /** Take part; ended by `since`, because rows are counted for certain only then. */
  readonly roles: ReadonlyArray<Role>
  readonly runs: number
  /** Rows of a warm-up are told by its connections when they like: where there was one, rows are counted over both. */
  readonly rows?: { readonly before: Mark; readonly runs: number }
}

export const since = (
  stage: Stage,
  { before, roles, rows, runs }: Span
): Effect.Effect<Cost, RoleFailed | BenchPostgres.PostgresFailed> =>
  Effect.gen(function*() {
    const after = yield* mark(stage, roles)
    yield* Effect.forEach(roles, (role) => role.close, { concurrency: roles.length, discard: true })
    yield* Effect.sleep(statisticsWithin)
    const rowsAfter = Option.map(yield* serverOf(stage), (server) => server.rows)
    const nodeUs = (after.nodeUs - before.nodeUs) / runs
    const rowsBefore = Option.map((rows?.before ?? before).server, (server) => server.rows)
    const servers = Option.all([before.server, after.server, rowsBefore, rowsAfter])
    if (Option.isNone(servers)) return { nodeUs }
    const [first, last, rowsFirst, rowsLast] = servers.value
    const postgres = Option.zipWith(last.cpuUs, first.cpuUs, (a, b) => (a - b) / runs)
    const statements = Option.zipWith(last.statements, first.statements, (a, b) => (a - b) * 10_000 / runs)
    return {
      nodeUs,
      ...Option.match(postgres, { onNone: () => ({}), onSome: (postgresUs) => ({ postgresUs }) }),
      walBytes: (last.walBytes - first.walBytes) / runs,
      ...Option.match(statements, { onNone: () => ({}), onSome: (statementsPer10k) => ({ statementsPer10k }) }),
      rowsPer10k: (rowsLast - rowsFirst) * 10_000 / (rows?.runs ?? runs)
    }
  })

/** For details: rounded, absent parts left out. */
export const details = (cost: Cost): Readonly<Record<string, number>> =>
  Object.fromEntries(Object.entries(cost).map(([name, value]) => [name, Math.round(value * 10) / 10]))
