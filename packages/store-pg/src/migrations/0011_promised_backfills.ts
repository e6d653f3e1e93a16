/**
 * Which promised runs fill a range of their schedule: an owner that comes after the one that promised them must mark them too.
 * A node of an earlier release leaves it null, and does not mark them.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const text = `
alter table orrery.schedule_promised add column backfill boolean;
`

export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))
