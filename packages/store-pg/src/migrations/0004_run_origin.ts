/** The run that a run was made of anew: null for nearly all. */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const text = `
alter table orrery.runs add column origin text;
alter table orrery.run_history add column origin text;
comment on column orrery.runs.origin is 'the dead letter that it is the redrive of';
`

export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))
