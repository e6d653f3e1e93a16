/** What the database itself says about the runs of one demo. Counted, not assumed. */
import * as PgPools from "@orrery/store-pg/PgPools"
import { Data, Effect, type Redacted } from "effect"

export class EvidenceUnavailable extends Data.TaggedError("EvidenceUnavailable")<{ readonly cause: unknown }> {
  override get message() {
    return `the database did not answer: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/** Everything about the runs of one namespace: each demo uses its own. */
export const make = (url: Redacted.Redacted<string>, namespace: string) =>
  Effect.gen(function*() {
    const pool = yield* PgPools.makePool({
      role: "demo",
      url,
      max: 2,
      statementTimeoutMs: 20_000,
      queryTimeoutMs: 20_000
    })
    const rows = <Row>(text: string, values: ReadonlyArray<unknown>) =>
      Effect.tryPromise({
        try: async () => (await pool.query(text, [...values])).rows as ReadonlyArray<Row>,
        catch: (cause) => new EvidenceUnavailable({ cause })
      })
    const number = (text: string, values: ReadonlyArray<unknown>) =>
      Effect.map(rows<{ readonly n: string | number | null }>(text, values), ([row]) => Number(row?.n ?? 0))

    return {
      /** Milliseconds since 1970, as the database counts them. */
      now: number("select floor(extract(epoch from clock_timestamp()) * 1000) as n", []),

      /** Runs with a committed end. */
      finished: number(`select count(*) as n from orrery.run_history h ${ofNamespace}`, [namespace]),

      /** Node ids, the owner of most queues of this demo first. */
      owners: Effect.map(
        rows<{ readonly owner: string }>(
          "select owner from orrery.partitions where namespace = $1 and owner is not null group by owner order by count(*) desc, owner",
          [namespace]
        ),
        (list) => list.map((row) => row.owner)
      ),

      /** Runs with more than one committed end, or with an end while still in line. */
      duplicated: number(
        `select count(*) as n from (
          select id from (
            select h.id from orrery.run_history h ${ofNamespace}
            union all
            select h.id from orrery.runs h ${ofNamespace}
          ) every_row group by id having count(*) > 1
        ) doubled`,
        [namespace]
      ),

      /** From the first run's creation to the last one's end, ms. */
      durationMs: number(
        `select max(h.finished_at) - min(h.created_at) as n from orrery.run_history h ${ofNamespace}`,
        [namespace]
      ),

      /** Queues of this demo that a node owns. */
      ownedBy: (owner: string) =>
        number("select count(*) as n from orrery.partitions where namespace = $1 and owner = $2", [namespace, owner]),

      /** After `sinceMs`: the longest time between two committed ends, ms; the first counts from `sinceMs`. */
      longestGapMs: (sinceMs: number) =>
        number(
          `select coalesce(max(finished_at - greatest(before, $2::bigint)), 0) as n from (
            select h.finished_at, lag(h.finished_at, 1, $2::bigint) over (order by h.finished_at) as before
            from orrery.run_history h ${ofNamespace}
          ) ends where finished_at > $2::bigint`,
          [namespace, sinceMs]
        )
    }
  })

export type Evidence = Effect.Effect.Success<ReturnType<typeof make>>

const ofNamespace = "join orrery.partitions p on p.id = h.partition_id and p.namespace = $1"
