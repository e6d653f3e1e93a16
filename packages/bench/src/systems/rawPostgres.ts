/**
 * No scheduler at all: what this PostgreSQL gives to the plainest table through the same library. Its rates are what a
 * scheduler on PostgreSQL can be measured against; it is never the best peer.
 */
import pg from "pg"
import type { Job, JobPayload, Place, Producer, Running, System, WorkOptions } from "../System.js"
import { payloadOf } from "./payload.js"
import { countRows } from "./storeCount.js"

const connections = 4
/** Rows of one insert and of one delete. */
const batchRows = 500

const table = `create table raw_jobs (id bigint generated always as identity primary key, payload text not null)`
const insert = {
  name: "raw-insert",
  text: "insert into raw_jobs (payload) select payload from unnest($1::text[]) as payload"
}
/** Several workers never take the same rows, and a crash gives them back. */
const take = {
  name: "raw-take",
  text: `select id, payload from raw_jobs order by id limit ${batchRows} for update skip locked`
}
const remove = { name: "raw-delete", text: "delete from raw_jobs where id = any($1::bigint[])" }

const poolOf = (databaseUrl: string, max: number): pg.Pool => {
  const pool = new pg.Pool({ connectionString: databaseUrl, max, application_name: "bench-raw" })
  // What fails is told by the statement that fails.
  pool.on("error", () => undefined)
  return pool
}

const prepare: System["prepare"] = async ({ databaseUrl }) => {
  const pool = poolOf(databaseUrl, 1)
  await pool.query(table)
  await pool.end()
}

const produce = async ({ databaseUrl }: Place): Promise<Producer> => {
  const pool = poolOf(databaseUrl, connections)
  const textOf = (job: Job) => JSON.stringify(payloadOf(job))
  const send = (jobs: ReadonlyArray<Job>) => pool.query({ ...insert, values: [jobs.map(textOf)] })
  return {
    enqueueBulk: async (jobs) => {
      let next = 0
      const lane = async () => {
        while (next < jobs.length) {
          const from = next
          next += batchRows
          await send(jobs.slice(from, from + batchRows))
        }
      }
      await Promise.all(Array.from({ length: connections }, lane))
    },
    enqueueOne: async (job) => {
      await send([job])
    },
    close: () => pool.end()
  }
}

const work = async ({ databaseUrl }: Place, { handler }: WorkOptions): Promise<Running> => {
  const pool = poolOf(databaseUrl, connections)
  let isClosing = false
  const round = async (client: pg.PoolClient): Promise<number> => {
    await client.query("begin")
    const { rows } = await client.query<{ id: string; payload: string }>(take)
    for (const { payload } of rows) await handler(JSON.parse(payload) as JobPayload)
    if (rows.length > 0) await client.query({ ...remove, values: [rows.map(({ id }) => id)] })
    await client.query("commit")
    return rows.length
  }
  // Ends when there is nothing left: only preloaded work is measured with it.
  const lane = async () => {
    const client = await pool.connect()
    try {
      while (!isClosing && await round(client) > 0);
    } finally {
      client.release()
    }
  }
  const lanes = Promise.all(Array.from({ length: connections }, lane))
  lanes.catch((error) => console.error("raw:", error))
  return {
    close: async () => {
      isClosing = true
      await lanes
      await pool.end()
    }
  }
}

export const systems: ReadonlyArray<System> = [{
  id: "raw:postgres",
  peer: "raw",
  version: "no scheduler",
  settings: { connections, batchRows },
  needs: "postgres",
  durability: "commit",
  keepsHistory: "never",
  workloads: ["W1", "W2", "W3"],
  prepare,
  produce,
  work,
  remaining: ({ databaseUrl }) => countRows(databaseUrl, "from raw_jobs")
}]
