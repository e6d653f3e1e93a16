/**
 * What is said of queues while they run. The settings are JSON text: nobody but Orrery reads them, and whole. Whoever writes
 * a revision names the one before it.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const table = `
create table orrery.queue_settings (
  namespace text collate "C" not null,
  queue text collate "C" not null,
  revision bigint not null check (revision >= 1),
  changed_at double precision not null,
  changed_by text not null,
  settings text not null,
  primary key (namespace, queue)
);
comment on table orrery.queue_settings is
  'pauses and limits said of queues at run time, and what the code declares; changed with orrery queues';
`

export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(table))
