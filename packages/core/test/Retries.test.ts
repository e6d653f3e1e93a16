/**
 * Retries and times of runs against a model that decides by plain rules over committed rows. A seeded history of enqueues,
 * typed failures, snoozes, silent workers, workers that die, cancels, late commits and owners that die between any two commits; at each
 * commit the row must be the one the model expects, and no attempt may start when its run is over. `SEED=n` replays one.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Entry, Load } from "@orrery/core/Entry"
import { fingerprint } from "@orrery/core/fingerprint"
import type { RunFinish, RunUpdate, StoredRun } from "@orrery/core/Journal"
import { timeoutGraceMs } from "@orrery/core/AttemptsOut"
import { QueueMachine } from "@orrery/core/QueueMachine"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import type { Outcome, RunFailure } from "@orrery/core/Run"
import { type RunId, unsafeMakeRunId } from "@orrery/core/RunId"
import type { RunPolicy } from "@orrery/core/RunRequest"
import type { Assignment } from "@orrery/core/WorkerProtocol"

const histories = 150
const stepsPerHistory = 200
const maxCrashes = 3
const slots = 4

const makeRandom = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const fixed = (maxAttempts: number, delay: number) => RetryPolicy.fixed({ maxAttempts, delay, jitter: 0 })
const policies: ReadonlyArray<RunPolicy> = [
  { retry: fixed(2, 20), timeoutMs: 0, byTag: { Busy: fixed(4, 50), Bad: "never" } },
  { retry: fixed(3, 20), timeoutMs: 0, queueTtlMs: 90 },
  { retry: fixed(10, 60), timeoutMs: 150, deadlineMs: 400 },
  { retry: fixed(10, 60), timeoutMs: 0, deadlineMs: 300, queueTtlMs: 120, byTag: { Busy: fixed(20, 10) } },
  { retry: fixed(6, 10), timeoutMs: 0, retryBudget: { retries: 3, perMs: 150 } },
  { retry: fixed(6, 10), timeoutMs: 0, retryBudget: { retries: 2, perMs: 100, onEmpty: "fail" } },
  { retry: fixed(6, 10), timeoutMs: 100, deadlineMs: 900, retryBudget: { retries: 2, perMs: 300 } }
]
const texts = policies.map((policy) => JSON.stringify(policy))
const policyOf = (run: StoredRun): RunPolicy => JSON.parse(run.policy) as RunPolicy

/** What must be written of a run next. */
interface Expected {
  readonly states: ReadonlyArray<string>
  readonly attempt: number
  readonly crashes: number
  readonly tag?: string
  /** When it may start again. */
  readonly at?: number
}

interface Held extends Assignment {
  readonly worker: string
  readonly startedAt: number
  readonly assignedAt: number
}

/** Tokens as a number that grows with time: another arithmetic than that of the machine. */
class Bucket {
  constructor(private tokens: number, private seenAt: number, readonly retries: number, readonly perMs: number) {}
  ask(now: number): number {
    this.tokens = Math.min(this.retries, this.tokens + (now - this.seenAt) * this.retries / this.perMs)
    this.seenAt = now
    return this.tokens >= 1 - 1e-9 ? now : now + (1 - this.tokens) * this.perMs / this.retries
  }
  take(): void {
    this.tokens -= 1
  }
}

class History {
  private readonly stored = new Map<RunId, StoredRun>()
  private readonly final = new Map<RunId, RunFinish>()
  private readonly enqueued = new Set<RunId>()
  private readonly expected = new Map<RunId, Expected>()
  private readonly cancelled = new Set<RunId>()
  private executing = new Map<RunId, Held>()
  private buckets = new Map<string, Bucket>()
  private machine: QueueMachine
  private epoch = 1
  private now = 10_000
  private readonly random: () => number
  private pending = new Map<RunId, Entry>()
  private sent: Array<Entry> | undefined
  private reads: Array<Load> = []
  private readonly windowRunsMax: number
  readonly ends = new Map<string, number>()

  constructor(readonly seed: number) {
    this.random = makeRandom(seed)
    this.windowRunsMax = seed % 2 === 0 ? 3 : 1_000
    this.machine = this.takeOver(true)
  }

  run() {
    for (let step = 0; step < stepsPerHistory; step++) this.step()
    for (let round = 0; this.final.size < this.enqueued.size; round++) {
      assert.isBelow(round, 3_000, `${this.enqueued.size - this.final.size} runs never end`)
      this.now += 15
      this.turn()
      this.commit()
      this.commit()
      this.readAll()
      for (const held of [...this.executing.values()]) this.report(held, { _tag: "success", result: "1" })
    }
    this.commit()
    this.commit()
    assert.isTrue(this.machine.isIdle, "the machine keeps something")
    assert.strictEqual(this.machine.nextTick(), Infinity, "an alarm is left")
  }

  private step() {
    const dice = this.random()
    if (dice < 0.2) this.enqueue()
    else if (dice < 0.45) this.endOne()
    else if (dice < 0.65) this.commit()
    else if (dice < 0.72) this.readAll()
    else if (dice < 0.75) this.loseWorker()
    else if (dice < 0.77) this.machine = this.takeOver(this.random() < 0.5)
    else if (dice < 0.8) this.cancelOne()
    else if (dice < 0.83) this.now = Math.max(this.now, Math.min(this.machine.nextTick(), this.now + 3_000))
    else this.now += Math.floor(this.random() * 50)
    this.turn()
  }

  private enqueue() {
    const delay = this.random() < 0.3 ? Math.floor(this.random() * 100) : 0
    const id = unsafeMakeRunId(this.now)
    const seq = this.machine.numbers.next()
    const scheduledAt = this.now + delay
    const priority = Math.floor(this.random() * 3)
    const kind = Math.floor(this.random() * texts.length)
    const run: StoredRun = {
      id,
      seq,
      task: `task-${kind}`,
      priority,
      createdAt: this.now,
      payload: "{}",
      policy: texts[kind]!,
      keys: this.random() < 0.2 ? `{"order":"o"}` : null,
      state: delay === 0 ? "ready" : "scheduled",
      scheduledAt,
      orderKey: 0,
      attempt: 0,
      crashes: 0,
      lease: 0,
      worker: null,
      failure: null,
      startedAt: null
    }
    const line = run.keys === null ? run.task : ">o"
    const placed = { ...run, orderKey: this.machine.orderKeyOf({ line, scheduledAt, priority, seq }) }
    this.enqueued.add(id)
    this.stored.set(id, placed)
    this.machine.admitNew(placed)
  }

  private turn() {
    this.machine.tick(this.now)
    this.collect()
    let free = slots - this.machine.runningCount
    this.machine.dispatch(this.now, { take: () => free-- > 0 ? (this.random() < 0.5 ? "w1" : "w2") : undefined })
    this.collect()
    for (const { assignedAt, runId, timeoutMs } of this.executing.values()) {
      const isOver = timeoutMs > 0 && this.now > assignedAt + timeoutMs + timeoutGraceMs + 1
      assert.isFalse(isOver, `${runId} should have been taken from its worker`)
    }
    if (this.windowRunsMax === 1_000) this.noneIsOverdue()
  }

  /** With all of it in memory, what is over by the clock has ended, or is running, or about to be written. */
  private noneIsOverdue() {
    if (this.reads.length > 0) return
    for (const run of this.stored.values()) {
      const isMoving = this.pending.has(run.id) || this.sent?.some(({ id }) => id === run.id) === true
      if (isMoving || this.executing.has(run.id) || run.state === "running") continue
      assert.isAbove(this.overAt(run), this.now - 1e-9, `${run.id} should have expired`)
    }
  }

  private overAt(run: StoredRun): number {
    const { deadlineMs = Infinity, queueTtlMs = Infinity } = policyOf(run)
    return Math.min(run.createdAt + deadlineMs, run.lease > 0 ? Infinity : run.scheduledAt + queueTtlMs)
  }

  private collect() {
    const { out } = this.machine
    for (const entry of out.writes.splice(0)) this.pending.set(entry.id, entry)
    out.freed.length = 0
    for (const { assignment, worker } of out.assignments.splice(0)) this.started(worker, assignment)
    for (const { attempt } of out.cancels.splice(0)) {
      const held = this.executing.get(attempt.runId)
      if (held === undefined || held.lease !== attempt.lease) continue
      // Its time is over, or it was asked to end: the machine decides by itself when the worker does not answer.
      if (this.cancelled.has(attempt.runId) && this.random() < 0.7) this.report(held, { _tag: "cancelled" })
      else if (!this.machine.holds(attempt)) this.executing.delete(attempt.runId)
    }
    this.reads.push(...out.loads.splice(0))
  }

  private started(worker: string, assignment: Assignment) {
    const run = this.stored.get(assignment.runId)!
    const policy = policyOf(run)
    assert.isFalse(this.final.has(run.id))
    assert.isFalse(this.executing.has(run.id), `two live attempts of ${run.id}`)
    assert.isAtMost(run.scheduledAt, this.now, "early")
    // With an ordering key it was decided before, and has waited for its mark to be durable.
    const isMarked = run.state === "running"
    if (!isMarked) assert.isAbove(this.overAt(run), this.now, `${run.id} started when it was over`)
    assert.strictEqual(assignment.attempt, isMarked ? run.attempt : run.attempt + 1)
    const left = policy.deadlineMs === undefined ? Infinity : Math.max(1, run.createdAt + policy.deadlineMs - this.now)
    const timeoutMs = Math.min(left, policy.timeoutMs === 0 ? Infinity : policy.timeoutMs)
    assert.strictEqual(assignment.timeoutMs, timeoutMs === Infinity ? 0 : timeoutMs)
    this.executing.set(run.id, {
      ...assignment,
      worker,
      startedAt: isMarked ? run.startedAt! : this.now,
      assignedAt: this.now
    })
  }

  private endOne() {
    const all = [...this.executing.values()]
    const held = all[Math.floor(this.random() * all.length)]
    if (held === undefined) return
    const dice = this.random()
    const failure = (tag: string): Outcome => (
      { _tag: "failure", failure: { kind: "failure", tag, message: "m", error: "{}" }, retryable: true }
    )
    const isOver = held.timeoutMs > 0 && this.now >= held.startedAt + held.timeoutMs
    if (isOver) {
      const late: RunFailure = { kind: "timeout", tag: "Timeout", message: "late" }
      return this.report(held, { _tag: "failure", failure: late, retryable: true })
    }
    if (dice < 0.15) this.report(held, { _tag: "success", result: "1" })
    else if (dice < 0.35) this.report(held, failure("Busy"))
    else if (dice < 0.4) this.report(held, failure("Bad"))
    else if (dice < 0.65) this.report(held, failure("Other"))
    else if (dice < 0.75) {
      const outcome = failure("Busy") as Extract<Outcome, { _tag: "failure" }>
      this.report(held, { ...outcome, retryAfterMs: 35 })
    } else if (dice < 0.9) this.report(held, { _tag: "snooze", delayMs: 100 + Math.floor(this.random() * 100) })
    else this.report(held, { _tag: "interrupted" })
  }

  private report(held: Held, outcome: Outcome) {
    this.executing.delete(held.runId)
    const run = this.stored.get(held.runId)!
    const entry = this.machine.outcome(held, outcome, this.now)
    if (entry !== undefined) this.expected.set(run.id, this.after({ ...run, attempt: held.attempt }, outcome, held))
    this.collect()
  }

  private after(run: StoredRun, outcome: Outcome, held: { readonly startedAt: number }): Expected {
    const { attempt, crashes } = run
    const base = { attempt, crashes }
    const isAsked = this.machine.find(run.id)!.cancelRequested
    const deadline = run.createdAt + (policyOf(run).deadlineMs ?? Infinity)
    switch (outcome._tag) {
      case "success":
        return { ...base, states: ["succeeded"] }
      case "interrupted":
      case "cancelled":
        return isAsked
          ? { ...base, states: ["cancelled"] }
          : { attempt: attempt - 1, crashes, states: ["ready"], at: run.scheduledAt }
      case "snooze": {
        const at = this.now + outcome.delayMs
        if (isAsked) return { ...base, states: ["cancelled"] }
        return at >= deadline
          ? { ...base, states: ["expired"], tag: "DeadlineExceeded" }
          : { attempt: attempt - 1, crashes, states: ["scheduled"], at }
      }
      case "failure":
        return { ...base, ...this.afterFailure(run, outcome, { deadline, isAsked, ...held }) }
    }
  }

  private afterFailure(
    run: StoredRun,
    outcome: Extract<Outcome, { readonly _tag: "failure" }>,
    { deadline, isAsked, startedAt }: {
      readonly deadline: number
      readonly isAsked: boolean
      readonly startedAt: number
    }
  ): Pick<Expected, "states" | "at" | "tag"> {
    const { byTag = {}, retry, retryBudget, timeoutMs } = policyOf(run)
    const { failure } = outcome
    const isCut = failure.kind === "timeout" && deadline < Infinity
      && (timeoutMs === 0 || deadline <= startedAt + timeoutMs)
    if (isCut) return { states: ["expired"], tag: "DeadlineExceeded" }
    const policy = failure.kind === "failure" ? byTag[failure.tag] ?? retry : retry
    const end = { states: ["failed"], tag: failure.tag }
    if (policy === "never" || run.attempt >= policy.maxAttempts || policy._tag !== "fixed") return end
    let at = this.now + (outcome.retryAfterMs ?? policy.delayMs)
    if (at >= deadline) return end
    if (isAsked) return { states: ["cancelled"] }
    if (retryBudget !== undefined) {
      const bucket = this.buckets.get(run.task)!
      const turn = bucket.ask(this.now)
      if (turn > this.now && retryBudget.onEmpty === "fail") return end
      at = Math.max(at, turn)
      if (at >= deadline) return end
      bucket.take()
    }
    return { states: ["retrying"], at }
  }

  private cancelOne() {
    const all = [...this.stored.keys()]
    const id = all[Math.floor(this.random() * all.length)]
    if (id === undefined) return
    this.cancelled.add(id)
    if (this.machine.cancel(id, this.now) === "unknown") this.machine.cancelStored(this.stored.get(id)!)
    this.collect()
  }

  private loseWorker() {
    const worker = this.random() < 0.5 ? "w1" : "w2"
    for (const held of [...this.executing.values()]) {
      if (held.worker !== worker) continue
      this.executing.delete(held.runId)
      const run = this.stored.get(held.runId)!
      const crashes = run.crashes + 1
      const isPoison = crashes >= maxCrashes
      const isAsked = this.machine.find(run.id)!.cancelRequested
      const isOver = isPoison || held.attempt >= policyOf(run).retry.maxAttempts
      this.expected.set(run.id, {
        attempt: held.attempt,
        crashes,
        states: isAsked ? ["cancelled"] : isOver ? ["failed"] : ["ready"],
        ...isAsked || !isOver ? {} : { tag: isPoison ? "PoisonRun" : "WorkerLost" }
      })
    }
    this.machine.doubt(worker, this.now)
    this.machine.tick(this.now)
    this.collect()
  }

  private commit() {
    if (this.sent === undefined) {
      this.sent = [...this.pending.values()]
      this.pending = new Map()
      for (const entry of this.sent) this.apply(entry)
      return
    }
    const { sent } = this
    this.sent = undefined
    for (const entry of sent) this.machine.committed(entry)
    this.turn()
  }

  private apply(entry: Entry) {
    const before = this.stored.get(entry.id)!
    const updates: Array<RunUpdate> = []
    const finishes: Array<RunFinish> = []
    this.machine.changes.send(entry, updates, finishes)
    const expected = this.expected.get(entry.id)
    this.expected.delete(entry.id)
    for (const finish of finishes) {
      const failure = finish.failure === null ? undefined : JSON.parse(finish.failure) as RunFailure
      this.count(`${finish.state} ${failure?.tag ?? ""}`)
      if (expected !== undefined) this.check(entry.id, expected, finish, failure)
      else if (finish.state !== "cancelled") this.checkUntold(before, finish, failure)
      if (finish.state === "failed" || finish.state === "expired") {
        assert.strictEqual(failure!.fingerprint, fingerprint(entry.task, failure!))
      }
      this.final.set(finish.id, finish)
      this.stored.delete(finish.id)
    }
    for (const update of updates) {
      if (update.state !== "running" && expected !== undefined) this.check(entry.id, expected, update, undefined)
      this.stored.set(update.id, { ...before, ...update })
    }
  }

  private check(
    id: RunId,
    expected: Expected,
    row: Pick<RunUpdate, "attempt" | "crashes"> & { readonly state: string; readonly scheduledAt?: number },
    failure: RunFailure | undefined
  ) {
    // What has gone on since may have replaced it: it has started again, been cancelled or expired.
    const isLater = this.cancelled.has(id) || row.state === "expired" && !expected.states.includes("expired")
    if (isLater) return
    assert.include(expected.states, row.state, `${id} after its outcome`)
    assert.deepStrictEqual([row.attempt, row.crashes], [expected.attempt, expected.crashes], `${id} ${row.state}`)
    if (expected.tag !== undefined) assert.strictEqual(failure?.tag, expected.tag)
    if (expected.at !== undefined && row.scheduledAt !== undefined) {
      assert.approximately(row.scheduledAt, expected.at, 1.01, `${id} ${row.state}`)
      assert.isAtLeast(row.scheduledAt, expected.at - 1e-6)
    }
  }

  /** It ended by the clock of its owner. */
  private checkUntold(run: StoredRun, finish: RunFinish, failure: RunFailure | undefined) {
    const { deadlineMs = Infinity, queueTtlMs = Infinity, timeoutMs } = policyOf(run)
    switch (failure?.tag) {
      case "QueueTtlExceeded":
        assert.strictEqual(finish.state, "expired")
        assert.strictEqual(run.lease, 0)
        return assert.isAtLeast(this.now, run.scheduledAt + queueTtlMs)
      case "DeadlineExceeded":
        assert.strictEqual(finish.state, "expired")
        return assert.isAtLeast(this.now, run.createdAt + deadlineMs)
      case "Timeout":
        assert.strictEqual(finish.state, "failed")
        return assert.isAtLeast(this.now, (finish.startedAt ?? 0) + timeoutMs + timeoutGraceMs)
      case "WorkerLost":
      case "PoisonRun":
        return assert.strictEqual(finish.state, "failed")
      default:
        assert.fail(`${run.id} ${finish.state} without an outcome: ${finish.failure}`)
    }
  }

  private count(what: string) {
    this.ends.set(what, (this.ends.get(what) ?? 0) + 1)
  }

  private readAll() {
    for (const load of this.reads.splice(0)) {
      const isTimer = load.line === undefined
      const keyOf = (run: StoredRun) => isTimer ? run.scheduledAt : run.orderKey
      const isInLine = (run: StoredRun) => run.state === "ready" || (run.state !== "running" && run.keys !== null)
      const lineOf = (run: StoredRun) => run.keys === null ? run.task : ">o"
      const rows = [...this.stored.values()]
        .filter((run) =>
          isTimer ? run.state !== "running" && !isInLine(run) : isInLine(run) && lineOf(run) === load.line
        )
        .filter((run) => keyOf(run) > load.afterKey || (keyOf(run) === load.afterKey && run.seq > load.afterSeq))
        .sort((a, b) => keyOf(a) - keyOf(b) || a.seq - b.seq)
      this.machine.loaded(load.line, rows.slice(0, load.limit), rows.length <= load.limit)
    }
  }

  /** The owner dies with what it had not committed. The workers live on, or die with it. */
  private takeOver(areAlive: boolean): QueueMachine {
    this.sent = undefined
    this.pending = new Map()
    this.reads = []
    this.expected.clear()
    this.cancelled.clear()
    const all = [...this.stored.values()]
    const isInLine = (run: StoredRun) => run.state === "ready" || (run.state !== "running" && run.keys !== null)
    // The first owner has full buckets, later ones empty ones.
    this.buckets = new Map(policies.flatMap(({ retryBudget: budget }, kind) => {
      if (budget === undefined) return []
      const tokens = this.epoch === 1 ? budget.retries : 0
      return [[`task-${kind}`, new Bucket(tokens, this.now, budget.retries, budget.perMs)] as const]
    }))
    const machine = new QueueMachine(
      {
        partitionId: 1,
        epoch: this.epoch++,
        agingStepMs: 30,
        maxCrashes,
        window: { runsMax: this.windowRunsMax, bytesMax: 1e6 }
      },
      {
        now: this.now,
        lines: [...new Set(all.filter(isInLine).map((run) => run.keys === null ? run.task : ">o"))],
        hasTimers: all.some((run) => run.state !== "running" && !isInLine(run)),
        running: all.filter((run) => run.state === "running"),
        adoptUntil: this.now
      }
    )
    const alive = areAlive ? [...this.executing.values()] : []
    this.executing = new Map()
    for (const worker of ["w1", "w2"]) {
      const held = alive.filter((each) => each.worker === worker && this.stored.get(each.runId)?.state === "running")
      if (!areAlive) continue
      const { stale } = machine.announce(worker, held.map((each) => ({ ...each, partitionId: 1 })))
      const isStale = new Set(stale.map(({ runId }) => runId))
      for (const each of held) if (!isStale.has(each.runId)) this.executing.set(each.runId, each)
    }
    return machine
  }
}

const replayed = Number(process.env["SEED"] ?? Number.NaN)

describe("retries and times of runs", () => {
  it(`are those of a plain model over ${histories} random histories`, () => {
    const seeds = Number.isNaN(replayed) ? Array.from({ length: histories }, (_, seed) => seed + 1) : [replayed]
    const ends = new Map<string, number>()
    for (const seed of seeds) {
      const history = new History(seed)
      try {
        history.run()
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        throw new Error(`history with SEED=${seed} failed: ${reason}`, { cause: error })
      }
      for (const [what, count] of history.ends) ends.set(what, (ends.get(what) ?? 0) + count)
    }
    if (seeds.length === 1) return
    // Every way to end has been gone.
    const ways = ["succeeded ", "failed Busy", "failed Bad", "failed Other", "failed Timeout", "failed PoisonRun"]
    for (const way of [...ways, "expired QueueTtlExceeded", "expired DeadlineExceeded"]) {
      assert.isAbove(ends.get(way) ?? 0, 10, way)
    }
  }, 60_000)
})
