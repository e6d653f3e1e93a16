/** A run in the memory of its owner, and the words in which the machine says what it has decided. */
import type { Alarm } from "./Deadlines.js"
import type { Held, Permit } from "./Gates.js"
import { marked } from "./fingerprint.js"
import type { Taken } from "./Started.js"
import type { RunFinish, RunUpdate, StoredRun } from "./Journal.js"
import { makeNeed, type Need } from "./Need.js"
import type { Roll } from "./Rolls.js"
import type { RunFailure } from "./Run.js"
import type { RunId } from "./RunId.js"
import { isBackfill, lineOf, parseKeys, type RunKeys } from "./RunKeys.js"
import { defaultPolicy, parsePolicy, type RunPolicy } from "./RunRequest.js"
import type { WaitingState } from "./RunState.js"
import type { Seat } from "./Window.js"
import type { Assignment, AttemptRef } from "./WorkerProtocol.js"

type Place = "out" | "ready" | "timer" | "settling" | "running" | "finishing"

/** A run in memory. */
export interface Entry {
  readonly id: RunId
  readonly seq: number
  /** An edit can change its version. */
  task: string
  priority: number
  readonly createdAt: number
  payload: string
  readonly policy: string
  readonly keys: string | null
  readonly trace: string | undefined
  /** Of the ready runs of its partition, which it waits with. */
  line: string
  readonly told: RunKeys | undefined
  /** Its policy, once somebody has asked for it. */
  terms: RunPolicy | undefined
  /** What it asks of workers; `null`: nobody has looked yet. */
  need: Need | undefined | null
  /** When its owner must look at it next, if nothing else happens. */
  alarm: Alarm | undefined
  /** Of its attempt that is out. */
  permits: ReadonlyArray<Held>
  /** What its start has taken of rates, until its worker is told. */
  rates: ReadonlyArray<Taken>
  /** Of keys at which it does not wait. */
  claims: ReadonlyArray<Permit> | undefined
  /** The worker hears of the attempt once the mark that it has started is durable. */
  isGated: boolean
  state: WaitingState | "running"
  scheduledAt: number
  orderKey: number
  attempt: number
  crashes: number
  lease: number
  worker: string | null
  failure: string | null
  startedAt: number | null
  place: Place
  /** Whether the store has it in the line it waits in; else leaving memory needs a write. */
  inStoredLine: boolean
  /** Payload, its version or priority are not the stored ones: since the last write, and with the one that is sent. */
  isEdited: boolean
  isSentEdited: boolean
  cancelRequested: boolean
  /** Assigned behind the slots of its worker: it may have waited there, and not begun. */
  isBehind: boolean
  /** Lost with its worker while it may not have begun. From then on it is given to free slots only, where it does begin. */
  isSuspect: boolean
  seat: Seat<Entry> | undefined
  /** How it ended, once it has. */
  end: Pick<RunFinish, "state" | "result" | "keep"> & Required<Pick<RunFinish, "keptDays">> | undefined
  /** Where its start is written, as long as its own row does not show it. */
  roll: Roll | undefined
  /** What the journal has not been given yet. A later change replaces an earlier one: the last is written. */
  unwritten: Change | undefined
  /** What the journal is writing. */
  sent: Change | undefined
  /** Who waits for `unwritten`, and for `sent`, to be committed. */
  waiters: Waiter | undefined
  sentWaiters: Waiter | undefined
}

/** `start`: an update too, of which a `Roll` may take the place. */
export type Change = "update" | "start" | "finish"

/** What may be changed of a run that waits. */
export interface Edit {
  readonly payload?: string
  /** With the version of that payload. */
  readonly task?: string
  readonly priority?: number
  readonly scheduledAt?: number
}

/** Somebody who waits for a change of a run to be committed; a list, the last to come first. */
export interface Waiter {
  readonly told: (answer: "committed" | "not-owner") => void
  next: Waiter | undefined
}

export interface Load {
  /** `undefined`: that of runs that wait for their time. */
  readonly line: string | undefined
  readonly afterKey: number
  readonly afterSeq: number
  readonly limit: number
}

export interface Out {
  /** Entries with something unwritten, each once. */
  writes: Array<Entry>
  assignments: Array<{ readonly worker: string; readonly assignment: Assignment }>
  cancels: Array<{ readonly worker: string; readonly attempt: AttemptRef }>
  loads: Array<Load>
  /** Workers of slots given back, once for each slot. */
  freed: Array<string>
}

/** The workers a partition can use now, and their free slots. Shared by all actors of a node. */
export interface WorkerPool {
  /** Takes a place at some worker able to run the task and answers the worker. `isSuspect`: only where it begins at once. */
  readonly take: (task: string, isSuspect: boolean, need: Need | undefined) => string | undefined
  /** Whether `take` might find one; without a turn taken. Without it: it might. */
  readonly hasRoom?: (task: string, isSuspect: boolean, need: Need | undefined) => boolean
  /** Whether the place taken last is behind the slots of this worker. Without it: never. */
  readonly isBehind?: (worker: string) => boolean
  /** Whether runs of backfills have their half of the slots already. Without it: never. */
  readonly holds?: (task: string, need: Need) => boolean
}

export const failureText = (kind: RunFailure["kind"], tag: string, message: string) =>
  JSON.stringify({ kind, tag, message } satisfies RunFailure)

/** Why a run was cancelled that found its concurrency key full, or that made room at it. */
export const crowdedText = () => failureText("cancelled", "ConcurrencyFull", "its concurrency key was full")
export const replacedText = ({ id }: Entry) =>
  failureText("cancelled", "ConcurrencyReplaced", `run ${id} with the same key took its place`)

/**
 * What waits behind the slots of a worker begins or goes back within a second. Lost with its worker later than that, the grace
 * for lost workers included, it is taken to have begun, ms.
 */
const behindMsMax = 3_000

/** Its worker has been given up. `uncounted`: it may not have begun, so that is no crash; `again`: it is tried again. */
export const lose = (
  entry: Entry,
  worker: string,
  lostAt: number,
  maxCrashes: number
): "uncounted" | "again" | "cancelled" | "failed" => {
  entry.isSuspect = entry.isBehind && lostAt - entry.startedAt! < behindMsMax
  if (entry.isSuspect) return "uncounted"
  entry.crashes += 1
  const isPoison = entry.crashes >= maxCrashes
  entry.failure = crashText(entry, worker, isPoison)
  if (entry.cancelRequested) return "cancelled"
  return isPoison || entry.attempt >= policyOf(entry).retry.maxAttempts ? "failed" : "again"
}

/** Why an attempt ended whose worker is gone; and why there is no other, when the run is taken for what kills them. */
const crashText = (entry: Entry, worker: string, isPoison: boolean): string => {
  const lost = `worker ${worker} was lost during attempt ${entry.attempt}`
  return isPoison
    ? failureText("crashed", "PoisonRun", `${lost}, as workers were ${entry.crashes} times: it is not tried again`)
    : failureText("crashed", "WorkerLost", lost)
}

/** FNV-1a of the text and attempt, mixed, as a fraction: jitter that a replay repeats, and the partition of a run. */
export const fraction = (id: string, attempt: number): number => {
  let hash = 0x811c9dc5 ^ attempt
  for (let at = 0; at < id.length; at++) hash = Math.imul(hash ^ id.charCodeAt(at), 0x01000193)
  // Keys that differ in their last character only would be neighbours: its bits are spread over all.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32
}

export const policyOf = (entry: Entry): RunPolicy => entry.terms ??= readPolicy(entry.policy)

export const needOf = (entry: Entry): Need | undefined => {
  if (entry.need !== null) return entry.need
  const { told } = entry
  return entry.need = makeNeed(entry.task, policyOf(entry).slots ?? 1, told !== undefined && isBackfill(told))
}

/** Of its worker that an attempt of it takes. */
export const slotsOf = (entry: Entry): number => needOf(entry)?.slots ?? 1

const readPolicy = (text: string): RunPolicy => {
  const policy = parsePolicy(text)
  // Checked at the edge; a row that cannot be read any more gets the defaults rather than stopping its queue.
  return "retry" in policy ? policy : defaultPolicy
}

/** Checked at the edge; a row whose keys cannot be read any more has none, rather than stopping its queue. */
const keysOf = (text: string): RunKeys | undefined => {
  const keys = parseKeys(text)
  return "_tag" in keys ? undefined : keys
}

export const clearLease = (entry: Entry): void => {
  entry.worker = null
  entry.startedAt = null
}

/** It is final from now on, once that is written. */
export const endAs = (entry: Entry, end: Omit<NonNullable<Entry["end"]>, "keep">, failure: string | null): void => {
  const { keptDays, result, state } = end
  entry.place = "finishing"
  entry.seat = undefined
  const isDead = state === "failed" || state === "expired"
  entry.failure = failure !== null && isDead ? marked(entry.task, failure) : failure
  entry.end = { state, result, keep: state !== "succeeded" || policyOf(entry).retention !== "none", keptDays }
}

export const noPermits: ReadonlyArray<Held> = []
export const noRates: ReadonlyArray<Taken> = []

export const entryOf = (run: StoredRun): Entry => ({
  id: run.id,
  seq: run.seq,
  task: run.task,
  priority: run.priority,
  createdAt: run.createdAt,
  payload: run.payload,
  policy: run.policy,
  keys: run.keys,
  trace: run.trace,
  line: lineOf(run.task, run.keys),
  told: run.keys === null ? undefined : keysOf(run.keys),
  terms: undefined,
  need: null,
  alarm: undefined,
  permits: noPermits,
  rates: noRates,
  claims: undefined,
  isGated: false,
  state: run.state,
  scheduledAt: run.scheduledAt,
  orderKey: run.orderKey,
  attempt: run.attempt,
  crashes: run.crashes,
  lease: run.lease,
  worker: run.worker,
  failure: run.failure,
  startedAt: run.startedAt,
  place: "out",
  inStoredLine: true,
  isEdited: false,
  isSentEdited: false,
  cancelRequested: false,
  isBehind: false,
  isSuspect: false,
  seat: undefined,
  end: undefined,
  roll: undefined,
  unwritten: undefined,
  sent: undefined,
  waiters: undefined,
  sentWaiters: undefined
})

export const updateOf = (entry: Entry): RunUpdate => ({
  id: entry.id,
  state: entry.state,
  scheduledAt: entry.scheduledAt,
  orderKey: entry.orderKey,
  attempt: entry.attempt,
  crashes: entry.crashes,
  lease: entry.lease,
  worker: entry.worker,
  failure: entry.failure,
  startedAt: entry.startedAt,
  ...entry.isEdited
    ? { edit: { payload: entry.payload, priority: entry.priority, task: entry.task, keys: entry.keys } }
    : undefined
})

export const finishOf = (entry: Entry): RunFinish => ({
  id: entry.id,
  attempt: entry.attempt,
  crashes: entry.crashes,
  worker: entry.worker,
  startedAt: entry.startedAt,
  failure: entry.failure,
  ...entry.end!
})

export const refOf = (entry: Entry, partitionId: number): AttemptRef => ({
  partitionId,
  runId: entry.id,
  attempt: entry.attempt,
  lease: entry.lease
})

const moreThanOne = (slots: number): number | undefined => slots === 1 ? undefined : slots

export const assignmentOf = (entry: Entry, partitionId: number, timeoutMs: number): Assignment => ({
  partitionId,
  runId: entry.id,
  task: entry.task,
  payload: entry.payload,
  attempt: entry.attempt,
  lease: entry.lease,
  timeoutMs,
  trace: entry.trace,
  slots: moreThanOne(slotsOf(entry))
})
