/** Runs and batches for the contracts of the stores. */
import type { Claim } from "@orrery/core/Identity"
import type { JournalBatch, RunFinish, RunUpdate, StartRoll, StoredRun } from "@orrery/core/Journal"
import { type PartitionName, PartitionStore } from "@orrery/core/PartitionStore"
import { type RunId, unsafeMakeRunId } from "@orrery/core/RunId"
import { Clock, Effect } from "effect"
import { randomUUID } from "node:crypto"

export const newRunId: Effect.Effect<RunId> = Effect.map(Clock.currentTimeMillis, unsafeMakeRunId)

/** An id that says it was made at that time, ms since 1970: the generator never goes back. */
export const runIdMadeAt = (ms: number): RunId => {
  const time = Math.floor(ms).toString(16).padStart(12, "0")
  return `${time.slice(0, 8)}-${time.slice(8)}${unsafeMakeRunId(0).slice(13)}` as RunId
}

/** A ready run of its own id. Give a `seq` where several share a partition. */
export const sampleRun = (fields: Partial<StoredRun> = {}): Effect.Effect<StoredRun> =>
  Effect.map(newRunId, (id) => ({
    id,
    seq: 1,
    task: "mail.send",
    priority: 5,
    createdAt: 1_700_000_000_000,
    payload: `{"to":"a@example.org"}`,
    policy: `{"retry":null}`,
    keys: null,
    trace: undefined,
    state: "ready",
    scheduledAt: 1_700_000_000_000,
    orderKey: 1_700_000_000_000,
    attempt: 0,
    crashes: 0,
    lease: 0,
    worker: null,
    failure: null,
    startedAt: null,
    ...fields
  }))

/** A partition no other test uses. */
export const samplePartition = (fields: Partial<PartitionName> = {}): PartitionName => ({
  namespace: `test-${randomUUID()}`,
  queue: "mail",
  partition: 0,
  ...fields
})

export const takePartition = (name: PartitionName = samplePartition()) =>
  Effect.flatMap(PartitionStore, (store) => store.takeOver(name, "test"))

export const claimOf = (key: string, fields: Partial<Claim> = {}): Claim => ({
  key,
  expiresAt: 4_000_000_000_000,
  firstAt: 1_700_000_000_000.5,
  replaces: null,
  ...fields
})

export const batchOf = (
  owner: { readonly partitionId: number; readonly epoch: number },
  changes: {
    readonly inserts?: ReadonlyArray<StoredRun>
    /** Sent again: the history counts too. */
    readonly resends?: ReadonlyArray<StoredRun>
    /** Made anew of another run. */
    readonly redrives?: ReadonlyArray<{ readonly run: StoredRun; readonly origin: RunId }>
    /** By the ids of inserts. */
    readonly claims?: ReadonlyMap<RunId, Claim>
    readonly updates?: ReadonlyArray<RunUpdate>
    readonly finishes?: ReadonlyArray<RunFinish>
    readonly roll?: StartRoll
  }
): JournalBatch => ({
  partitionId: owner.partitionId,
  epoch: owner.epoch,
  inserts: [
    ...(changes.inserts ?? []).map((run) => ({ run, resend: false, claim: changes.claims?.get(run.id) })),
    ...(changes.resends ?? []).map((run) => ({ run, resend: true, claim: changes.claims?.get(run.id) })),
    ...(changes.redrives ?? []).map((each) => ({ ...each, resend: true }))
  ],
  updates: changes.updates ?? [],
  finishes: changes.finishes ?? [],
  roll: changes.roll
})

export const updateOf = (run: StoredRun, fields: Partial<RunUpdate> = {}): RunUpdate => ({
  id: run.id,
  state: run.state,
  scheduledAt: run.scheduledAt,
  orderKey: run.orderKey,
  attempt: run.attempt,
  crashes: run.crashes,
  lease: run.lease,
  worker: run.worker,
  failure: run.failure,
  startedAt: run.startedAt,
  ...fields
})

export const finishOf = (run: StoredRun, fields: Partial<RunFinish> = {}): RunFinish => ({
  id: run.id,
  state: "succeeded",
  attempt: 1,
  crashes: run.crashes,
  worker: "worker-1",
  startedAt: 1_700_000_000_500,
  result: `"done"`,
  failure: null,
  keep: true,
  ...fields
})
