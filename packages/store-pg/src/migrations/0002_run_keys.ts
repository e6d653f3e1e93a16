/**
 * With whom a run shares its turn, and the line it waits in.
 *
 * `line` is null where it is the task alone, as of nearly all runs: they cost nothing more than before. Runs with an
 * ordering key (`>` and the key) stay in their line while they wait for their time: the ones behind them must wait too.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const text = `
alter table orrery.runs add column line text, add column keys text;
alter table orrery.run_history add column keys text;
drop index orrery.runs_ready;
drop index orrery.runs_timers;
create index runs_lines on orrery.runs (partition_id, coalesce(line, task), order_key, seq)
  where state = 2 or (state in (1, 4) and starts_with(line, '>'));
create index runs_timers on orrery.runs (partition_id, scheduled_at, seq)
  where state in (1, 4) and starts_with(line, '>') is not true;
`

export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))
