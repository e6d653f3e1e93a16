/**
 * Which run has the identity key of a task, written by the commit that makes the run. `replaces` is the run it was made over: the
 * journal takes a key only from that one. A row goes once it has expired and its run is final.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const text = `
create table orrery.run_identities (
  partition_id integer not null,
  task text not null,
  key text not null,
  run_id uuid not null,
  expires_at double precision not null,
  first_at double precision not null,
  replaces uuid,
  primary key (partition_id, task, key)
) with (
  -- A key that is used again is written in place.
  fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
comment on table orrery.run_identities is 'which run stands for the requests of a task with the same identity key; times in ms since 1970';
create index run_identities_expiry on orrery.run_identities (partition_id, expires_at);
`

export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))
