/**
 * The end of a run in a transaction of its handler: what the handler writes, the runs it enqueues and the outcome are committed
 * together or not at all.
 *
 * The fence is the run's own row. It holds the lease of the attempt that may end it, every later attempt has a greater one,
 * and it is written by the owner of the partition only, through the fence of the epoch. The transaction's last statement
 * takes that row away where the lease is still this attempt's, and writes the history. An owner that has given the attempt
 * up, committed or not yet, and this transaction meet at the row: one of them finds it gone or changed
 * (docs/decisions/0024).
 */
import { SqlClient, type SqlError } from "@effect/sql"
import { sealOutcome } from "@orrery/core/codedPorts"
import { AttemptFenced } from "@orrery/core/Errors"
import { failpoint } from "@orrery/core/Failpoint"
import { Attempt } from "@orrery/core/Handlers"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import type { Outcome } from "@orrery/core/Run"
import { parsePolicy } from "@orrery/core/RunRequest"
import { Data, Effect, Option, Schedule } from "effect"
import { withTransaction } from "./enqueueInTransaction.js"
import { kept } from "./internal/commitStatement.js"
import { policyText } from "./internal/policyCodes.js"
import { codes } from "./internal/states.js"

/** What of a task is needed here. */
interface Ends<S> {
  readonly name: string
  readonly namespace: string
  readonly outcomeOf: (result: S) => Effect.Effect<Outcome>
}

export interface CompleteOptions {
  /** Default: that of the environment (`PayloadCodec`); without one the result is stored as it is. */
  readonly codec?: PayloadCodec.Codec
}

/**
 * Runs `effect` in a transaction of the `SqlClient`, with the success of the run. To be the last thing a handler
 * does: once it has answered the run has succeeded with the value, whatever the handler does from then on.
 *
 * - `AttemptFenced`: this attempt may not end the run (any more); everything was rolled back
 * - `effect` fails: rolled back; the attempt fails as it would without a transaction
 * - the process dies before the commit: rolled back, the run is tried again. After it: the run has succeeded and is not
 *   run again
 * - a result that cannot be encoded, or is too large: rolled back; the run ends as `unencodable`
 *
 * `effect` must not commit by itself. Called inside another transaction it dies: the run would end before that is committed. The
 * `SqlClient` must be on the database of the cluster, with the right to select and delete from `orrery.runs` and to insert
 * into `orrery.run_history`.
 */
export const completeInTransaction = <S, E, R>(
  task: Ends<S>,
  effect: Effect.Effect<S, E, R>,
  { codec: given }: CompleteOptions = {}
): Effect.Effect<S, E | AttemptFenced | SqlError.SqlError, R | SqlClient.SqlClient | Attempt> =>
  Effect.gen(function*() {
    const attempt = yield* Attempt
    if (Option.isSome(yield* Effect.serviceOption(SqlClient.TransactionConnection))) {
      return yield* Effect.dieMessage("completeInTransaction inside of a transaction: its own must be the outermost")
    }
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const codec = given ?? (yield* PayloadCodec.current)
    const lease = Number(attempt.fencingToken.split(".")[0])
    const keep = yield* recorded(sql, attempt, lease)
    let end: Outcome | undefined
    const body = Effect.gen(function*() {
      const value = yield* effect
      const plain = yield* task.outcomeOf(value)
      const outcome = codec === undefined ? plain : sealOutcome(codec, plain, (field) => (
        { namespace: task.namespace, run: attempt.runId, task: task.name, field }
      ))
      if (outcome._tag !== "success") return yield* new Unencodable({ value })
      const [row] = yield* sql.unsafe<{ readonly done: number }>(finish(keep), [attempt.runId, lease, outcome.result])
      if (row?.done !== 1) return yield* fenced(attempt, taken)
      failpoint("complete.before-commit")
      end = outcome
      return value
    })
    // Between the commit and its note nothing may come: the worker would report another end.
    return yield* Effect.uninterruptibleMask((restore) => {
      let last: Option.Option<S> = Option.none()
      const noted = restore(body).pipe(
        Effect.tap((value) => {
          last = Option.some(value)
        })
      )
      return withTransaction(noted).pipe(
        Effect.catchAll((error) =>
          // The rest was done: the commit has failed, or its answer was lost.
          Effect.flatMap(
            Option.isNone(last) ? Effect.succeed(false) : wasCommitted(sql, attempt, lease),
            (isDone) => isDone ? Effect.succeed(Option.getOrThrow(last)) : Effect.fail(error)
          )
        ),
        Effect.tap(() => {
          attempt.committed = end!
          failpoint("complete.after-commit")
        })
      )
    })
  }).pipe(
    Effect.catchIf(
      (error): error is Unencodable => error instanceof Unencodable,
      ({ value }) => Effect.succeed(value as S)
    )
  ) as Effect.Effect<S, E | AttemptFenced | SqlError.SqlError, R | SqlClient.SqlClient | Attempt>

class Unencodable extends Data.TaggedError("Unencodable")<{ readonly value: unknown }> {}

const taken = "another attempt holds the run, or it has ended"

const fenced = ({ attempt, runId }: Pick<Attempt["Type"], "attempt" | "runId">, reason: string) =>
  new AttemptFenced({ runId, attempt, reason })

/** How long the owner may take to write down that the attempt has begun: normally a few ms. */
const recordedWithinMs = 10_000
/** 2 ms doubling to 100 ms. */
const lookAgain = Schedule.exponential("2 millis").pipe(
  Schedule.union(Schedule.spaced("100 millis")),
  Schedule.upTo(recordedWithinMs)
)

class NotRecorded extends Data.TaggedError("NotRecorded") {}

/** Waits until the start of the attempt is in the store. Answers whether its run leaves a row in the history. */
const recorded = (sql: SqlClient.SqlClient, attempt: Attempt["Type"], lease: number) =>
  Effect.flatMap(
    sql.unsafe<{ readonly lease: number; readonly state: number; readonly policy: string }>(
      "select lease::float8 as lease, state, policy from orrery.runs where id = $1::uuid",
      [attempt.runId]
    ),
    ([row]): Effect.Effect<boolean, AttemptFenced | NotRecorded> => {
      if (row === undefined) return fenced(attempt, "it has ended")
      if (row.lease < lease) return new NotRecorded()
      if (row.lease > lease || row.state !== codes.running) return fenced(attempt, taken)
      const policy = parsePolicy(policyText(row.policy))
      return Effect.succeed(!("retry" in policy) || policy.retention !== "none")
    }
  ).pipe(
    Effect.retry({ schedule: lookAgain, while: (error) => error._tag === "NotRecorded" }),
    Effect.catchTag(
      "NotRecorded",
      () => fenced(attempt, `its start was not recorded within ${recordedWithinMs} ms`)
    )
  )

/** A process that stands still between the last statement and the commit must not keep the row for longer. */
const lockedMsMax = 2_000

const own = ["attempt", "crashes", "worker", "started_at"]
const moved = [...kept, ...own].join(", ")

const finish = (keep: boolean): string =>
  `with gone as (
      delete from orrery.runs where id = $1::uuid and lease = $2::bigint and state = ${codes.running} returning ${moved}
    )${
    keep
      ? `,
    ended as (
      insert into orrery.run_history (${moved}, state, result, finished_at, kept_days)
      select ${moved}, ${codes.succeeded}, $3::text, floor(extract(epoch from clock_timestamp()) * 1000)::bigint,
        orrery.kept_days(partition_id, ${codes.succeeded}::smallint)
      from gone
    )`
      : ""
  }
    select (select count(*) from gone)::integer as done, $3::text is null as "isEmpty",
      set_config('idle_in_transaction_session_timeout', '${lockedMsMax}', true)`

/**
 * What became of a commit that was not answered. `for share` waits for one that is still under way; the history is looked at by a
 * statement of its own, which sees what that has left.
 */
const wasCommitted = (sql: SqlClient.SqlClient, { attempt, runId }: Attempt["Type"], lease: number) =>
  Effect.gen(function*() {
    const [run] = yield* sql.unsafe<{ readonly lease: number; readonly state: number }>(
      "select lease::float8 as lease, state from orrery.runs where id = $1::uuid for share",
      [runId]
    )
    if (run !== undefined) {
      return run.lease === lease && run.state === codes.running
        ? false
        : yield* fenced({ attempt, runId }, taken)
    }
    const [end] = yield* sql.unsafe<{ readonly state: number; readonly attempt: number }>(
      "select state, attempt from orrery.run_history where id = $1::uuid limit 1",
      [runId]
    )
    // Only a success can leave nothing behind, and only this attempt could have one.
    return end === undefined || (end.state === codes.succeeded && end.attempt === attempt)
  }).pipe(Effect.retry({ schedule: lookAgain, while: (error) => error._tag === "SqlError" }))
