/**
 * Committed runs for readers: the table of runs that are not final, and the history. A run moves between them in one
 * statement, so a statement that looks at both sees it exactly once.
 *
 * Lists go down an index by id and stop at the limit. A filter that few runs match makes them look at many rows: the
 * read pool's statement timeout is the bound.
 */
import { inInbox, type Run, RunFailure } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import { type FinalRun, RunReader } from "@orrery/core/RunReader"
import { isFinal, type RunState } from "@orrery/core/RunState"
import { listBytesMax, listLimitMax, type RunFilter } from "@orrery/core/Runs"
import { partsOf } from "@orrery/core/TaskName"
import { Effect, Either, Layer, Schema } from "effect"
import type Pg from "pg"
import { unavailable } from "./internal/pgErrors.js"
import { policyText } from "./internal/policyCodes.js"
import { codes, names } from "./internal/states.js"
import { PgPools } from "./PgPools.js"

/** One instant for the whole statement: what the filter holds for due is shown as due. */
const now = "(extract(epoch from now()) * 1000)::float8"
const shared = `r.id, p.namespace, p.queue, p.partition, r.task, r.state, r.priority, r.created_at as "createdAt",
  r.scheduled_at as "scheduledAt", r.started_at as "startedAt", r.attempt, r.payload, r.failure, r.worker, r.origin`
const hot = `${shared}, null::bigint as "finishedAt", null::text as result,
  r.state in (${codes.scheduled}, ${codes.retrying}) and r.scheduled_at <= ${now} as "isDue", false as "inInbox"`
const past = `${shared}, r.finished_at as "finishedAt", r.result, false as "isDue", false as "inInbox"`

/** Committed by an application, and soon taken by its owner. */
const asked = `b.id, b.namespace, b.queue, coalesce(b.partition, 0), b.task, ${codes.scheduled}::smallint, b.priority,
  b.created_at, coalesce(b.due_at, b.created_at), null::float8, 0, b.payload, null::text, null::text, null::text,
  null::bigint, null::text, coalesce(b.due_at, 0) <= ${now}, true`

type Row = Omit<Run, "state" | "failure" | "waitsFor" | "origin"> & {
  readonly origin: RunId | null
  readonly state: number
  readonly failure: string | null
  readonly isDue: boolean
  readonly inInbox: boolean
  /** In lists only. */
  readonly bytesBefore?: unknown
}

const decodeFailure = Schema.decodeUnknownEither(Schema.parseJson(RunFailure))

/** Text an earlier or later release wrote in another form is shown as it is, rather than hiding the run. */
const failureOf = (text: string): RunFailure =>
  Either.getOrElse(decodeFailure(text), (): RunFailure => ({ kind: "undecodable", tag: "RunFailure", message: text }))

const runOf = ({ bytesBefore: _, failure, inInbox: isAsked, isDue, origin, state, ...row }: Row): Run => ({
  ...row,
  ...origin === null ? {} : { origin },
  ...partsOf(row.task),
  state: isDue ? "ready" : names[state]!,
  failure: failure === null ? null : failureOf(failure),
  waitsFor: isAsked ? inInbox : null
})

/** The stored rows that are shown as `state`. */
const shownAs = (state: RunState): string => {
  switch (state) {
    case "ready":
      return `(r.state = ${codes.ready} or (r.state in (${codes.scheduled}, ${codes.retrying}) and r.scheduled_at <= ${now}))`
    case "scheduled":
    case "retrying":
      return `(r.state = ${codes[state]} and r.scheduled_at > ${now})`
    default:
      return `r.state = ${codes[state]}`
  }
}

/** Of the filter only values go into the statement, as parameters; the rest of the text is ours. */
const listStatement = (filter: RunFilter): Pg.QueryConfig => {
  const values: Array<unknown> = []
  const conditions: Array<string> = []
  const where = (left: string, value: unknown) => {
    if (value === undefined) return
    values.push(value)
    conditions.push(`${left} $${values.length}`)
  }
  where("r.id <", filter.before)
  // Runs of all versions: `TaskName`.
  where("split_part(r.task, '@', 1) =", filter.task)
  where("p.namespace =", filter.namespace)
  where("p.queue =", filter.queue)
  if (filter.state !== undefined) conditions.push(shownAs(filter.state))
  values.push(Math.min(filter.limit, listLimitMax))
  const limit = `limit $${values.length}`
  const rest = `join orrery.partitions p on p.id = r.partition_id
    ${conditions.length === 0 ? "" : `where ${conditions.join(" and ")}`} order by r.id desc ${limit}`
  const inHot = `(select ${hot} from orrery.runs r ${rest})`
  const inPast = `(select ${past} from orrery.run_history r ${rest})`
  const from = filter.state === undefined ? `${inHot} union all ${inPast}` : isFinal(filter.state) ? inPast : inHot
  const bytes = "octet_length(payload) + coalesce(octet_length(result), 0)"
  const page =
    `select *, sum(${bytes}) over (order by id desc rows between unbounded preceding and 1 preceding) as "bytesBefore"
    from (select * from (${from}) found order by id desc ${limit}) page`
  return {
    text:
      `select * from (${page}) sized where "bytesBefore" is null or "bytesBefore" + ${bytes} <= ${listBytesMax} order by id desc`,
    values
  }
}

const findText = `select ${hot} from orrery.runs r join orrery.partitions p on p.id = r.partition_id where r.id = $1
  union all
  select ${past} from orrery.run_history r join orrery.partitions p on p.id = r.partition_id where r.id = $1
  union all
  select ${asked} from orrery.inbox b where b.id = $1
  limit 1`

const findFinalText = `select ${past}, r.policy, r.keys
  from orrery.run_history r join orrery.partitions p on p.id = r.partition_id where r.id = $1 limit 1`

const finalOf = ({ keys, policy, ...row }: Row & Pick<FinalRun, "policy" | "keys">): FinalRun => ({
  run: runOf(row),
  policy: policyText(policy),
  keys
})

export const make = Effect.gen(function*() {
  const { read } = yield* PgPools

  const rows = <A extends Row>(operation: string, statement: Pg.QueryConfig) =>
    Effect.tryPromise({ try: () => read.query<A>(statement), catch: unavailable(operation) }).pipe(
      Effect.map((result) => result.rows),
      Effect.withSpan(`PgRunReader.${operation}`)
    )
  const query = (operation: string, statement: Pg.QueryConfig) =>
    Effect.map(rows(operation, statement), (found) => found.map(runOf))

  return RunReader.of({
    find: (id) => Effect.map(query("find", { name: "orrery_find", text: findText, values: [id] }), ([run]) => run),
    findFinal: (id) =>
      Effect.map(
        rows<Parameters<typeof finalOf>[0]>("findFinal", {
          name: "orrery_find_final",
          text: findFinalText,
          values: [id]
        }),
        ([row]) => row === undefined ? undefined : finalOf(row)
      ),
    list: (filter) => query("list", listStatement(filter))
  })
})

export const layer: Layer.Layer<RunReader, never, PgPools> = Layer.effect(RunReader, make)
