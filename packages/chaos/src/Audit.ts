/**
 * What the database itself saw: triggers of the harness write down every change of a run and every takeover, in the same
 * transaction, so the audit is exactly as durable as what it tells of. The product knows nothing of it.
 *
 * Who wrote a row is known by the name of its connection, and under which epoch by what that node had taken over last.
 */
import { RunState } from "@orrery/core/RunState"
import type { Committed } from "@orrery/testing/history/HistoryEvent"
import { Effect, type Redacted } from "effect"
import * as Database from "./Database.js"

const schema = `
create schema chaos;
create table chaos.audit (
  n bigint generated always as identity primary key,
  at double precision not null default extract(epoch from clock_timestamp()) * 1000,
  op "char" not null,
  app text not null default current_setting('application_name'),
  run uuid,
  partition_id integer not null,
  owner text,
  epoch bigint,
  old_state smallint,
  state smallint,
  attempt integer,
  lease bigint,
  crashes integer,
  scheduled_at double precision
);
-- The nodes are not allowed to look at it.
create function chaos.note_run() returns trigger language plpgsql security definer set search_path = pg_catalog as $$
begin
  if tg_table_schema = 'orrery' and tg_argv[0] = 'history' then
    insert into chaos.audit (op, run, partition_id, state, attempt, crashes)
    values ('H', new.id, new.partition_id, new.state, new.attempt, new.crashes);
  elsif tg_op = 'DELETE' then
    insert into chaos.audit (op, run, partition_id, old_state, attempt, lease, crashes)
    values ('D', old.id, old.partition_id, old.state, old.attempt, old.lease, old.crashes);
  else
    insert into chaos.audit (op, run, partition_id, old_state, state, attempt, lease, crashes, scheduled_at)
    values (left(tg_op, 1)::"char", new.id, new.partition_id, case when tg_op = 'UPDATE' then old.state end,
      new.state, new.attempt, new.lease, new.crashes, new.scheduled_at);
  end if;
  return null;
end $$;
create function chaos.note_takeover() returns trigger language plpgsql security definer set search_path = pg_catalog as $$
begin
  insert into chaos.audit (op, partition_id, owner, epoch) values ('T', new.id, new.owner, new.epoch);
  return null;
end $$;
create trigger chaos after insert or update or delete on orrery.runs
  for each row execute function chaos.note_run();
create trigger chaos after insert on orrery.run_history for each row execute function chaos.note_run('history');
create trigger chaos after insert or update on orrery.partitions for each row execute function chaos.note_takeover();
`

/** Before the first node starts; the schema of the product must be there. */
export const install = (superuser: Redacted.Redacted<string>) => Database.script(superuser, schema)

interface Row {
  readonly n: number
  readonly at: number
  readonly op: "I" | "U" | "D" | "H" | "T"
  readonly app: string
  readonly run: string
  readonly partition: number
  readonly owner: string | null
  readonly epoch: number | null
  readonly oldState: number | null
  readonly state: number | null
  readonly attempt: number
  readonly lease: number | null
  readonly scheduledAt: number | null
}

const columns = `n::float8, at, op::text, app, run::text, partition_id as partition, owner, epoch::float8,
  old_state as "oldState", state, attempt, lease::float8, scheduled_at as "scheduledAt"`
const pageRows = 50_000

export interface Audited {
  /** In the order of the commits of each partition. */
  readonly committed: ReadonlyArray<Committed>
  /** Changes by a node that was not the owner of the partition any more, one line each, at most a few. */
  readonly zombies: ReadonlyArray<string>
  readonly takeovers: number
}

/** Reads it when all is over. `clockOffset`: clock of the database minus the monotonic clock. */
export const read = (query: Database.Query, clockOffset: number): Effect.Effect<Audited> =>
  Effect.gen(function*() {
    const reader = new Reader(clockOffset)
    let last = 0
    for (;;) {
      const rows = yield* query<Row>(
        `select ${columns} from chaos.audit where n > $1 order by n limit ${pageRows}`,
        [last]
      )
      for (const row of rows) reader.add(row)
      if (rows.length < pageRows) return reader
      last = rows[rows.length - 1]!.n
    }
  })

const zombiesToldMax = 20
const journalPrefix = "orrery-journal-"

class Reader implements Audited {
  readonly committed: Array<Committed> = []
  readonly zombies: Array<string> = []
  takeovers = 0
  /** Of each partition: the owner now, and the last epoch of each node that ever was. */
  private readonly owners = new Map<number, string>()
  private readonly epochs = new Map<string, number>()
  /** A run leaves one table and enters the other in one statement: two rows, either first. */
  private readonly halves = new Map<string, Row>()

  constructor(private readonly clockOffset: number) {}

  add(row: Row): void {
    if (row.op === "T") return this.takeover(row)
    const half = row.op === "D" || row.op === "H" ? this.halves.get(row.run) : undefined
    if ((row.op === "D" || row.op === "H") && half === undefined) return void this.halves.set(row.run, row)
    this.halves.delete(row.run)
    const left = row.op === "H" ? half : row
    const entered = row.op === "D" ? half : row
    const node = row.app.slice(journalPrefix.length)
    const owner = this.owners.get(row.partition)
    if (node !== owner && this.zombies.length < zombiesToldMax) {
      this.zombies.push(`${row.app} changed run ${row.run} of partition ${row.partition}, whose owner was ${owner}`)
    }
    const { scheduledAt } = row
    this.committed.push({
      _tag: "committed",
      at: row.at - this.clockOffset,
      by: row.app,
      partition: row.partition,
      epoch: this.epochs.get(`${row.partition} ${node}`) ?? 0,
      run: row.run,
      from: stateOf(left?.oldState),
      to: stateOf(entered?.state)!,
      attempt: entered?.attempt ?? row.attempt,
      lease: left?.lease ?? 0,
      ...(scheduledAt === null ? {} : { scheduledAt })
    })
  }

  private takeover(row: Row): void {
    this.takeovers += 1
    this.owners.set(row.partition, row.owner!)
    this.epochs.set(`${row.partition} ${row.owner}`, row.epoch!)
  }
}

const stateOf = (code: number | null | undefined) =>
  code === null || code === undefined ? undefined : RunState.literals[code]
