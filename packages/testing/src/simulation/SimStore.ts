/**
 * The database of a simulation: transactions of one instant, over a network that delays and loses, with outages. Tells the
 * history what it commits.
 *
 * What a real journal resolves inside is resolved here: a call whose answer is lost is made again until `giveUpMs`, then
 * it fails, and may have been carried out.
 */
import { Fenced, StoreUnavailable } from "@orrery/core/Errors"
import { fromSubmit, type Journal, type JournalBatch, type StoredRun } from "@orrery/core/Journal"
import { MemoryTables } from "@orrery/core/MemoryTables"
import type { PartitionStore, Takeover } from "@orrery/core/PartitionStore"
import type { ProgressStore } from "@orrery/core/ProgressStore"
import type { Run } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { Effect, Exit } from "effect"
import type { Mutation } from "./Mutation.js"
import type { Recorder } from "./Recorder.js"
import { SimInbox } from "./SimInbox.js"
import type { SimNetwork } from "./SimNetwork.js"
import type { SimProcess } from "./SimProcess.js"
import type { World } from "./World.js"

/** The machine of the database, as a place in the network. */
export const storeName = "store"

const giveUpMs = 4_000
const retryMsMin = 50
const retryMsMax = 400
/** How far ahead `clockAhead` is, ms, and how old what `staleReads` shows. */
const wrongByMs = 400

export class SimStore {
  readonly tables = new MemoryTables(Infinity)
  readonly inbox: SimInbox
  isDown = false
  /** Part of the answers that are lost after the commit. */
  lostAnswersPart = 0
  /** When each run was first stored, for `staleReads`. */
  private readonly storedAt = new Map<RunId, number>()

  constructor(
    private readonly world: World,
    private readonly network: SimNetwork,
    private readonly recorder: Recorder,
    private readonly mutation: Mutation | undefined
  ) {
    this.inbox = new SimInbox(this.tables, mutation)
  }

  journal(process: SimProcess): Journal["Type"] {
    return fromSubmit((batch, done) => {
      if (this.mutation === "acknowledgeEarly") {
        process.later(0, () => done(Exit.succeed({ duplicates: new Set(), now: this.now })))
        return this.once(process, () => void this.commit(batch), () => undefined)
      }
      const operation = "commit"
      this.call(process, () => this.commit(batch), (answer) => {
        if (answer === unavailable) return done(Exit.fail(silence(operation)))
        if (answer === undefined) {
          return done(Exit.fail(new Fenced({ partitionId: batch.partitionId, epoch: batch.epoch })))
        }
        done(Exit.succeed({ ...answer, now: this.shownNow(answer.now) }))
      })
    })
  }

  /** Puts questions of a process to the store, again and again for a while. */
  asking(process: SimProcess) {
    return <A>(operation: string, look: () => A): Effect.Effect<A, StoreUnavailable> =>
      Effect.async((resume) =>
        this.call(process, look, (answer) =>
          resume(
            answer === unavailable
              ? Effect.fail(silence(operation))
              : Effect.succeed(answer)
          ))
      )
  }

  progressStore(process: SimProcess): ProgressStore["Type"] {
    const ask = this.asking(process)
    return {
      write: (batch) =>
        Effect.flatMap(
          ask("write", () => this.tables.writeNotes(batch)),
          (isWritten) => isWritten ? Effect.void : new Fenced({ partitionId: batch.partitionId, epoch: batch.epoch })
        ),
      find: (ids) => ask("find", () => this.tables.findNotes(ids)),
      checkpoint: (id) =>
        ask("checkpoint", () => this.mutation === "forgetCheckpoints" ? null : this.tables.checkpoint(id)),
      endsSince: (query) => ask("endsSince", () => this.tables.endsSince(query, this.now)),
      endings: (name, ids) => ask("endings", () => this.tables.endings(name, ids))
    }
  }

  partitionStore(process: SimProcess): PartitionStore["Type"] {
    const ask = this.asking(process)
    return {
      takeOver: (name) =>
        ask("takeOver", () => {
          this.recorder.count("takeOvers")
          const taken = this.tables.takeOver(name, this.now)
          for (const run of taken.running) this.tellRolled(taken, run)
          const withoutKeys = this.mutation === "forgetPermits" || this.mutation === "forgetOrder"
          const running = this.mutation === "forgetRunning"
            ? []
            : withoutKeys
            ? taken.running.map((run) => ({ ...run, keys: null }))
            : taken.running
          const hasTimers = this.mutation === "dropTimers" ? false : taken.hasTimers
          return { ...taken, now: this.shownNow(taken.now), running, hasTimers }
        }),
      readLines: (pages) => ask("readLines", () => this.tables.readLines(pages)),
      readTimers: (page) => ask("readTimers", () => this.tables.readTimers(page)),
      findRun: (partitionId, id) => ask("findRun", () => this.tables.findRun(partitionId, id)),
      readIdentities: (partitionId, keys) => ask("readIdentities", () => this.tables.readIdentities(partitionId, keys)),
      pruneIdentities: (partitionId, limit) =>
        ask("pruneIdentities", () => this.tables.pruneIdentities(partitionId, limit, this.now)),
      countRuns: (partitionId, limit) => ask("countRuns", () => this.tables.countRuns(partitionId, limit)),
      epochs: (partitionIds) => ask("epochs", () => this.tables.epochs(partitionIds)),
      countBefore: (place) => ask("countBefore", () => this.tables.countBefore(place)),
      newerSettings: (known) => ask("newerSettings", () => this.tables.newerSettings(known)),
      now: ask("now", () => this.shownNow(this.now)),
      listWithWork: (except) => ask("listWithWork", () => this.tables.listWithWork(except))
    }
  }

  /** A read as any node answers it. `undefined`: there is no such run; `null`: no answer. */
  find(process: SimProcess, id: RunId, done: (run: Pick<Run, "state"> | undefined | null) => void): void {
    this.once(process, () => {
      const isTooNew = this.world.now - (this.storedAt.get(id) ?? 0) < wrongByMs
      return this.mutation === "staleReads" && isTooNew ? undefined : this.seen(id)
    }, (answer) => done(answer === unavailable ? null : answer))
  }

  /** A run, or what waits in the inbox to be one. */
  seen(id: RunId): Pick<Run, "state"> | undefined {
    return this.tables.find(id, this.now) ?? (this.inbox.rows.has(id) ? { state: "ready" } : undefined)
  }

  /** The transaction of an application. `done` is told whether it knows that it was committed. */
  transact(process: SimProcess, request: RunRequest, done: (isCommitted: boolean) => void): void {
    this.once(process, () => this.inbox.insert(request), (answer) => done(answer !== unavailable))
  }

  private get now(): number {
    return this.world.databaseTime
  }

  private shownNow(now: number): number {
    return this.mutation === "clockAhead" ? now + wrongByMs : now
  }

  /** Again and again until it is answered, or for so long that the caller must not wait any more. */
  private call<A>(
    process: SimProcess,
    look: () => A,
    done: (answer: A | Unavailable) => void
  ): void {
    const since = this.world.now
    const attempt = (): void =>
      this.once(process, look, (answer) => {
        if (answer !== unavailable) return done(answer)
        if (this.world.now - since > giveUpMs) return done(unavailable)
        process.later(this.world.random.between(retryMsMin, retryMsMax), attempt)
      })
    attempt()
  }

  /** One question and one answer. */
  private once<A>(process: SimProcess, look: () => A, done: (answer: A | Unavailable) => void): void {
    const { network, world } = this
    const fail = (): void => {
      this.recorder.count("unanswered")
      process.later(network.delayMs(), () => done(unavailable))
    }
    if (!process.isAlive) return
    if (this.isDown || network.isCut(process.name, storeName)) return fail()
    world.after(network.delayMs(), () => {
      // The process may be dead by now: what it has sent is carried out all the same.
      if (this.isDown) return fail()
      const answer = look()
      const isLost = world.random.chance(this.lostAnswersPart) || network.isCut(process.name, storeName)
      if (isLost) {
        this.recorder.count("lostAnswers")
        return fail()
      }
      world.after(network.delayMs(), () => process.enter(() => done(answer)))
    })
  }

  private commit(batch: JournalBatch) {
    const ids = [...batch.inserts.map(({ run }) => run.id), ...batch.updates, ...batch.finishes].map((each) =>
      typeof each === "string" ? each : each.id
    )
    if (this.mutation === "forgetHistory") { for (const id of ids) this.tables.history.delete(id) }
    const before = new Map(ids.map((id) => [id, this.look(batch.partitionId, id)] as const))
    const epoch = this.mutation === "skipFence"
      ? this.tables.epochs([batch.partitionId]).get(batch.partitionId)!
      : batch.epoch
    const committed = this.inbox.commit({ ...batch, epoch }, (each) => this.tables.commit(each, this.now))
    if (committed === undefined) {
      this.recorder.count("fencedCommits")
      return undefined
    }
    if (batch.fromInbox === true) this.recorder.count("drained", batch.inserts.length)
    for (const id of ids) {
      const [was, is] = [before.get(id), this.look(batch.partitionId, id)]
      if (is === undefined || (was !== undefined && isSame(was, is))) continue
      if (was === undefined) this.storedAt.set(id, this.world.now)
      this.recorder.tell({
        _tag: "committed",
        by: storeName,
        partition: batch.partitionId,
        epoch: batch.epoch,
        run: id,
        from: was?.state ?? this.lastStates.get(id),
        to: is.state,
        attempt: is.attempt,
        lease: is.lease,
        ...(is.state === "scheduled" || is.state === "retrying" ? { scheduledAt: is.scheduledAt } : {})
      })
      this.lastStates.set(id, is.state)
      this.leases.set(id, is.lease)
    }
    return committed
  }

  /** A start that only a roll has told of is shown by the take-over. */
  private tellRolled({ epoch, partitionId }: Takeover, { attempt, id, lease, state }: StoredRun): void {
    if (this.lastStates.get(id) === state && this.leases.get(id) === lease) return
    this.recorder.tell({
      _tag: "committed",
      by: storeName,
      partition: partitionId,
      epoch,
      run: id,
      from: this.lastStates.get(id),
      to: state,
      attempt,
      lease
    })
    this.lastStates.set(id, state)
    this.leases.set(id, lease)
  }

  private readonly lastStates = new Map<RunId, Run["state"]>()
  /** History rows have none. */
  private readonly leases = new Map<RunId, number>()

  private look(partitionId: number, id: RunId): Look | undefined {
    const waiting = this.tables.findRun(partitionId, id)
    const run = waiting ?? this.tables.history.get(id)
    if (run === undefined) return undefined
    const lease = waiting?.lease ?? this.leases.get(id) ?? 0
    const { attempt, scheduledAt, state } = run
    return { state, attempt, scheduledAt, lease }
  }
}

type Look = Pick<Run, "state" | "attempt" | "scheduledAt"> & { readonly lease: number }

const isSame = (a: Look, b: Look): boolean =>
  a.state === b.state && a.attempt === b.attempt && a.scheduledAt === b.scheduledAt && a.lease === b.lease

const silence = (operation: string) => new StoreUnavailable({ operation, cause: "simulated" })

const unavailable = Symbol("unavailable")
type Unavailable = typeof unavailable
