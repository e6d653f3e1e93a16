/**
 * What `MemoryStore` holds, as plain synchronous code: each call is one transaction. A simulation puts its own network
 * before it.
 */
import type { CountedRuns } from "./Depths.js"
import { Expiries } from "./Expiries.js"
import type { Claim, IdentityKey, StoredIdentity } from "./Identity.js"
import type { Committed, JournalBatch, RunFinish, RunStart, RunUpdate, StoredRun } from "./Journal.js"
import {
  type KnownSettings,
  type LinePageRequest,
  type Page,
  type PageRequest,
  partitionKey,
  type PartitionName,
  type PlaceInLine,
  type Takeover,
  type WithWork
} from "./PartitionStore.js"
import { type QueueName, type QueueRecord, unset } from "./QueueSettings.js"
import type { QueueFilter } from "./QueueSettingsStore.js"
import type { Ending, Ends, EndsQuery, NotesBatch } from "./ProgressStore.js"
import { isOrdered, lineOf } from "./RunKeys.js"
import { isRedrivable } from "./deadLetter.js"
import type { Run, RunFailure } from "./Run.js"
import type { FinalRun } from "./RunReader.js"
import type { RunId } from "./RunId.js"
import { type FinalState, isFinal } from "./RunState.js"
import type { StoredNotes } from "./RunNotes.js"
import { listBytesMax, listLimitMax, type RunFilter } from "./Runs.js"
import { partsOf } from "./TaskName.js"

interface Partition {
  readonly id: number
  readonly name: PartitionName
  epoch: number
  readonly runs: Map<RunId, StoredRun & Origin>
  /** Starts that its runs do not show, by slot. */
  readonly rolls: Map<number, ReadonlyArray<RunStart>>
  /** By task and key. */
  readonly identities: Map<string, Omit<StoredIdentity, "run">>
}

type Origin = Pick<Run, "origin">

const identityOf = ({ key, task }: IdentityKey): string => `${task}|${key}`

export class MemoryTables {
  private readonly byKey = new Map<string, Partition>()
  private readonly byId = new Map<number, Partition>()
  /** Which partition holds a run that is not final. */
  private readonly home = new Map<RunId, Partition>()
  /** Final runs, in the order of their ends. */
  readonly history = new Map<RunId, Run>()
  private readonly expiries = new Expiries()

  /** What a final run that may be made anew was told. */
  private readonly told = new Map<RunId, Pick<FinalRun, "policy" | "keys">>()
  /** By `namespace|queue`. */
  private readonly settings = new Map<string, QueueRecord>()
  private readonly notes = new Map<RunId, { readonly notes: StoredNotes; readonly checkpoint: string | null }>()

  /** `historyRunsMax`: final runs kept; the oldest go first. */
  constructor(private readonly historyRunsMax: number) {}

  /** `undefined`: fenced, nothing was written. Else whole: nobody sees a half-written batch. */
  commit(batch: JournalBatch, now: number): Committed | undefined {
    const partition = this.byId.get(batch.partitionId)
    if (partition === undefined || partition.epoch !== batch.epoch) return undefined
    this.expire(now)
    const duplicates = new Set<RunId>()
    // As in one SQL statement: updates and finishes see the runs as they were before it.
    const updates = batch.updates.filter(({ id }) => partition.runs.has(id))
    const finishes = batch.finishes.filter(({ id }) => partition.runs.has(id))
    for (const { claim, origin, run } of batch.inserts) {
      const isClaimed = claim === undefined || take(partition, run, claim)
      const home = this.home.get(run.id)
      // The same batch once more: its own run is no duplicate.
      if (home === partition && partition.runs.get(run.id)!.seq === run.seq) continue
      if (!isClaimed || home !== undefined || this.history.has(run.id)) duplicates.add(run.id)
      else {
        this.home.set(run.id, partition)
        partition.runs.set(run.id, origin === undefined ? { ...run } : { ...run, origin })
      }
    }
    for (const update of updates) partition.runs.set(update.id, changed(partition.runs.get(update.id)!, update))
    for (const finish of finishes) this.end(partition, finish, now)
    if (batch.roll !== undefined) partition.rolls.set(batch.roll.slot, batch.roll.starts)
    if (updates.length === batch.updates.length) return { duplicates, now }
    const found = new Set(updates.map(({ id }) => id))
    return { duplicates, now, gone: new Set(batch.updates.flatMap(({ id }) => found.has(id) ? [] : [id])) }
  }

  private end(partition: Partition, finish: RunFinish, now: number): void {
    const run = partition.runs.get(finish.id)!
    partition.runs.delete(finish.id)
    this.home.delete(finish.id)
    if (!finish.keep) return void this.notes.delete(finish.id)
    const { keep: _, keptDays = 0, ...end } = finish
    const final = { ...run, ...end }
    this.history.set(finish.id, shown(partition, final, { finishedAt: now, result: finish.result }))
    if (isRedrivable(finish.state)) this.told.set(finish.id, { policy: run.policy, keys: run.keys })
    this.expiries.add(finish.id, keptDays, now)
    if (this.history.size <= this.historyRunsMax) return
    const oldest = this.history.keys().next().value!
    this.expiries.delete(oldest)
    this.forget(oldest)
  }

  /** Final runs that were kept for as long as they shall be are gone. */
  private expire(now: number): void {
    for (const id of this.expiries.take(now)) this.forget(id)
  }

  private forget(id: RunId): void {
    this.history.delete(id)
    this.told.delete(id)
    this.notes.delete(id)
  }

  /** Those that are final; answers how many. */
  deleteFinal(ids: ReadonlyArray<RunId>): number {
    const gone = ids.filter((id) => this.history.delete(id))
    for (const id of gone) {
      this.expiries.delete(id)
      this.forget(id)
    }
    return gone.length
  }

  /** False: fenced, nothing was written. */
  writeNotes({ epoch, partitionId, rows }: NotesBatch): boolean {
    if (this.byId.get(partitionId)?.epoch !== epoch) return false
    for (const { checkpoint, notes } of rows) {
      const before = this.notes.get(notes.runId)
      if (before !== undefined && before.notes.lease > notes.lease) continue
      this.notes.set(notes.runId, { notes, checkpoint: checkpoint ?? before?.checkpoint ?? null })
    }
    return true
  }

  findNotes(ids: ReadonlyArray<RunId>): ReadonlyArray<StoredNotes> {
    return ids.flatMap((id) => this.notes.get(id)?.notes ?? [])
  }

  checkpoint(id: RunId): string | null {
    return this.notes.get(id)?.checkpoint ?? null
  }

  endsSince({ limit, namespace, queue, since }: EndsQuery, now: number): Ends {
    this.expire(now)
    const all = [...this.history.values()].filter((run) =>
      run.namespace === namespace && run.queue === queue && run.finishedAt! >= since
    )
    const ends = all.slice(0, limit).map(({ finishedAt, id, state }) => (
      { id, state: state as FinalState, finishedAt: finishedAt! }
    ))
    return { ends, horizon: now, more: all.length > limit }
  }

  endings({ namespace, queue }: QueueName, ids: ReadonlyArray<RunId>): ReadonlyMap<RunId, Ending> {
    const found = new Map<RunId, Ending>()
    for (const id of ids) {
      const run = this.find(id, 0)
      if (run?.namespace !== namespace || run.queue !== queue) continue
      found.set(id, isFinal(run.state) ? run.state : "open")
    }
    return found
  }

  takeOver(name: PartitionName, now: number): Takeover {
    const partition = this.raise(name)
    const runs = [...partition.runs.values()]
    const settings = this.settings.get(queueKey(name))
    return {
      partitionId: partition.id,
      epoch: partition.epoch,
      now,
      lines: [...new Set(runs.filter(isInLine).map(storedLine))].sort(),
      hasTimers: runs.some(isTimer),
      running: runs.filter((run) => run.state === "running"),
      ...settings === undefined ? {} : { settings }
    }
  }

  newerSettings(known: ReadonlyArray<KnownSettings>): ReadonlyArray<QueueRecord> {
    return known.flatMap((each) => {
      const found = this.settings.get(queueKey(each))
      return found !== undefined && found.revision > each.revision ? [found] : []
    })
  }

  findSettings(name: QueueName): QueueRecord | undefined {
    return this.settings.get(queueKey(name))
  }

  /** `undefined`: another revision is the last. */
  saveSettings(record: QueueRecord, now: number): QueueRecord | undefined {
    if ((this.findSettings(record)?.revision ?? 0) !== record.revision - 1) return undefined
    const saved = { ...record, changedAt: now }
    this.settings.set(queueKey(record), saved)
    return saved
  }

  listSettings({ after = "", limit, namespace }: QueueFilter): ReadonlyArray<QueueRecord> {
    const names = new Map<string, QueueName>([...this.settings])
    for (const { name } of this.byKey.values()) names.set(queueKey(name), name)
    return [...names]
      .filter(([key, name]) => key > after && (namespace === undefined || name.namespace === namespace))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .slice(0, limit)
      .map(([, name]) => this.findSettings(name) ?? unset(name))
  }

  private raise(name: PartitionName): Partition {
    const key = partitionKey(name)
    let partition = this.byKey.get(key)
    if (partition === undefined) {
      partition = { id: this.byKey.size + 1, name, epoch: 0, runs: new Map(), rolls: new Map(), identities: new Map() }
      this.byKey.set(key, partition)
      this.byId.set(partition.id, partition)
    }
    partition.epoch += 1
    showStarts(partition)
    return partition
  }

  epochs(partitionIds: ReadonlyArray<number>): ReadonlyMap<number, number> {
    const known = partitionIds.flatMap((id) => this.byId.get(id) ?? [])
    return new Map(known.map(({ epoch, id }) => [id, epoch]))
  }

  readLines(requests: ReadonlyArray<LinePageRequest>): ReadonlyArray<Page> {
    return requests.map((request) => {
      const isOf = (run: StoredRun) => isInLine(run) && storedLine(run) === request.line
      return cut(request, this.runsOf(request.partitionId), isOf, (run) => run.orderKey)
    })
  }

  countBefore({ limit, line, orderKey, partitionId, seq }: PlaceInLine): number {
    const isBefore = (run: StoredRun) => run.orderKey < orderKey || (run.orderKey === orderKey && run.seq < seq)
    const isOf = (run: StoredRun) => isInLine(run) && storedLine(run) === line && isBefore(run)
    let count = 0
    for (const run of this.runsOf(partitionId)) if (isOf(run) && ++count >= limit) break
    return Math.min(limit, count)
  }

  readTimers(request: PageRequest): Page {
    return cut(request, this.runsOf(request.partitionId), isTimer, (run) => run.scheduledAt)
  }

  private runsOf(partitionId: number): Iterable<StoredRun> {
    return this.byId.get(partitionId)?.runs.values() ?? []
  }

  /** A run of the partition that is not final. */
  findRun(partitionId: number, id: RunId): StoredRun | undefined {
    return this.byId.get(partitionId)?.runs.get(id)
  }

  readIdentities(partitionId: number, keys: ReadonlyArray<IdentityKey>): ReadonlyArray<StoredIdentity> {
    const partition = this.byId.get(partitionId)
    return keys.flatMap((key) => {
      const row = partition?.identities.get(identityOf(key))
      if (row === undefined) return []
      const { payload: _, ...run } = partition!.runs.get(row.runId) ?? { payload: "" }
      return [{ ...row, run: "id" in run ? run : undefined }]
    })
  }

  pruneIdentities(partitionId: number, limit: number, now: number): number {
    const partition = this.byId.get(partitionId)
    const gone = [...partition?.identities ?? []]
      .filter(([, row]) => row.expiresAt < now && !partition!.runs.has(row.runId)).slice(0, limit)
    for (const [key] of gone) partition!.identities.delete(key)
    return gone.length
  }

  countRuns(partitionId: number, limit: number): CountedRuns {
    const groups = new Map<string | null, number>()
    let count = 0
    for (const { keys } of this.runsOf(partitionId)) {
      if (count >= limit) break
      count += 1
      groups.set(keys, (groups.get(keys) ?? 0) + 1)
    }
    return { groups: [...groups].map(([keys, runs]) => ({ keys, runs })), complete: count < limit }
  }

  listWithWork(except: ReadonlyArray<number>): ReadonlyArray<WithWork> {
    return [...this.byId]
      .filter(([id, { runs }]) => runs.size > 0 && !except.includes(id))
      .map(([partitionId, { name }]) => ({ ...name, partitionId }))
  }

  find(id: RunId, now: number): Run | undefined {
    this.expire(now)
    const partition = this.home.get(id)
    return partition === undefined
      ? this.history.get(id)
      : asOf(shown(partition, partition.runs.get(id)!), now)
  }

  findFinal(id: RunId, now: number): FinalRun | undefined {
    this.expire(now)
    const run = this.history.get(id)
    return run === undefined ? undefined : { run, policy: "", keys: null, ...this.told.get(id) }
  }

  list(filter: RunFilter, now: number): ReadonlyArray<Run> {
    this.expire(now)
    return withinBytes(
      [...this.home.keys(), ...this.history.keys()]
        .filter((id) => filter.before === undefined || id < filter.before)
        .sort((a, b) => (a < b ? 1 : a > b ? -1 : 0))
        .map((id) => this.find(id, now)!)
        .filter((run) => matches(filter, run))
        .slice(0, Math.min(filter.limit, listLimitMax))
    )
  }
}

const changed = (run: StoredRun, { edit, ...update }: RunUpdate): StoredRun => ({ ...run, ...update, ...edit })

/** What its rolls say goes into its runs, unless they have been changed since. */
const showStarts = ({ rolls, runs }: Partition): void => {
  for (const starts of rolls.values()) {
    for (const start of starts) {
      const run = runs.get(start.id)
      if (run !== undefined && run.lease < start.lease) runs.set(run.id, { ...run, ...start, state: "running" })
    }
  }
  rolls.clear()
}

/** True: the key is the run's now. */
const take = ({ identities }: Partition, { id, task }: StoredRun, { replaces, ...claim }: Claim): boolean => {
  const identity = identityOf({ task, key: claim.key })
  const held = identities.get(identity)
  if (held !== undefined && held.runId !== replaces && held.runId !== id) return false
  identities.set(identity, { ...claim, task, runId: id })
  return true
}

const queueKey = ({ namespace, queue }: QueueName): string => `${namespace}|${queue}`
const storedLine = (run: StoredRun): string => lineOf(run.task, run.keys)
const waitsForTime = (run: StoredRun): boolean => run.state === "scheduled" || run.state === "retrying"
const isInLine = (run: StoredRun): boolean => run.state === "ready" || (waitsForTime(run) && isOrdered(storedLine(run)))
const isTimer = (run: StoredRun): boolean => waitsForTime(run) && !isOrdered(storedLine(run))

const cut = (
  request: PageRequest,
  runs: Iterable<StoredRun>,
  isOf: (run: StoredRun) => boolean,
  keyOf: (run: StoredRun) => number
): Page => {
  const { afterKey, afterSeq } = request
  const after: Array<StoredRun> = []
  for (const run of runs) {
    const key = keyOf(run)
    if ((key > afterKey || (key === afterKey && run.seq > afterSeq)) && isOf(run)) after.push(run)
  }
  after.sort((a, b) => keyOf(a) - keyOf(b) || a.seq - b.seq)
  let count = 0
  let bytes = 0
  for (const run of after) {
    bytes += Buffer.byteLength(run.payload)
    if (count >= request.limit || (count > 0 && bytes > request.bytesMax)) break
    count += 1
  }
  return { runs: after.slice(0, count), complete: count === after.length }
}

/** Up to the bytes of a page, but one in any case. */
const withinBytes = (runs: ReadonlyArray<Run>): ReadonlyArray<Run> => {
  let bytes = 0
  const end = runs.findIndex(({ payload, result }, at) => {
    bytes += Buffer.byteLength(payload) + Buffer.byteLength(result ?? "")
    return at > 0 && bytes > listBytesMax
  })
  return end < 0 ? runs : runs.slice(0, end)
}

const matches = (filter: RunFilter, run: Run): boolean =>
  (filter.namespace === undefined || run.namespace === filter.namespace)
  && (filter.queue === undefined || run.queue === filter.queue)
  && (filter.task === undefined || run.task === filter.task)
  && (filter.state === undefined || run.state === filter.state)

/** A run whose time has come waits for nothing but a worker. */
const asOf = (run: Run, now: number): Run =>
  (run.state === "scheduled" || run.state === "retrying") && run.scheduledAt <= now ? { ...run, state: "ready" } : run

const shown = (
  { name }: Partition,
  run: Omit<StoredRun, "state"> & Pick<Run, "state"> & Origin,
  end: Pick<Run, "finishedAt" | "result"> = { finishedAt: null, result: null }
): Run => ({
  id: run.id,
  namespace: name.namespace,
  queue: name.queue,
  partition: name.partition,
  ...partsOf(run.task),
  state: run.state,
  priority: run.priority,
  createdAt: run.createdAt,
  scheduledAt: run.scheduledAt,
  startedAt: run.startedAt,
  ...end,
  attempt: run.attempt,
  payload: run.payload,
  failure: run.failure === null ? null : JSON.parse(run.failure) as RunFailure,
  worker: run.worker,
  waitsFor: null,
  ...run.origin === undefined ? {} : { origin: run.origin }
})
