/** Rows of `orrery.runs` as the actors want them. */
import type { StoredRun } from "@orrery/core/Journal"
import { policyText } from "./policyCodes.js"
import { names } from "./states.js"

export const storedColumns = `id, seq, task, priority, created_at as "createdAt", payload, policy, keys, trace, state,
  scheduled_at as "scheduledAt", order_key as "orderKey", attempt, crashes, lease, worker, failure,
  started_at as "startedAt"`

export type StoredRow = Omit<StoredRun, "state" | "trace"> & { readonly state: number; readonly trace: string | null }

/** Plain code, not a schema: a window is refilled by the thousand, and the columns are checked by the table. */
export const storedOf = (row: StoredRow): StoredRun => ({
  id: row.id,
  seq: row.seq,
  task: row.task,
  priority: row.priority,
  createdAt: row.createdAt,
  payload: row.payload,
  policy: policyText(row.policy),
  keys: row.keys,
  trace: row.trace ?? undefined,
  state: names[row.state] as StoredRun["state"],
  scheduledAt: row.scheduledAt,
  orderKey: row.orderKey,
  attempt: row.attempt,
  crashes: row.crashes,
  lease: row.lease,
  worker: row.worker,
  failure: row.failure,
  startedAt: row.startedAt
})
