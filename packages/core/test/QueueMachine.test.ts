/**
 * The machine against a model that sees the whole backlog. A seeded history of enqueues, commits that come late, page reads
 * with snapshots of their own, outcomes, lost workers, cancels, take-overs and repeated requests, with windows of a few runs; checked
 * at each assignment and at the end. `SEED=n` replays one history.
 */
import { assert, describe, it } from "@effect/vitest"
import type { RunFinish, RunStart, RunUpdate, StoredRun } from "@orrery/core/Journal"
import type { Entry, Load } from "@orrery/core/Entry"
import { QueueMachine } from "@orrery/core/QueueMachine"
import { expected, missing, reconcile } from "@orrery/core/Reconciliation"
import { type KeyOf, noRules, type QueueRate, type QueueRules } from "@orrery/core/QueueSettings"
import type { Roll } from "@orrery/core/Rolls"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import { type RunId, unsafeMakeRunId } from "@orrery/core/RunId"
import { isOrdered, lineOf, type RunKeys } from "@orrery/core/RunKeys"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import { Effect } from "effect"

const histories = 200
const stepsPerHistory = 250
const workers = ["w1", "w2", "w3"]
const tasks = ["a", "b"]

const makeRandom = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const policy = JSON.stringify({ retry: RetryPolicy.fixed({ maxAttempts: 4, delay: 50, jitter: 0 }), timeoutMs: 0 })

/** What some runs of a history are told. The limits of a key never change in it. */
const keyed: ReadonlyArray<RunKeys> = [
  { limits: [{ name: "k", key: "one", limit: 1 }] },
  { limits: [{ name: "k", key: "two", limit: 2 }] },
  { limits: [{ name: "k", key: "one", limit: 1 }, { name: "j", key: "x", limit: 2 }] },
  { limits: [{ name: "j", key: "x", limit: 2 }], tenant: "t1" },
  { tenant: "t2", weight: 3 },
  { order: "o1" },
  { order: "o2", limits: [{ name: "k", key: "two", limit: 2 }] },
  { rates: [{ name: "r", key: "slow", limit: 3, perMs: 40 }] },
  { rates: [{ name: "b", key: "slow", limit: 2, perMs: 30, algorithm: "bucket" }], tenant: "t1" }
]
const keysText = keyed.map((keys) => JSON.stringify(keys))

class History {
  /** When runs of a rate key were started, by its name and key. */
  private readonly starts = new Map<string, Array<number>>()
  /** Workers of the owner before that have not yet told the new one what they hold. */
  private silent = new Set<string>()
  private adoptUntil = 0
  private readonly shareKeyed: number
  /** What is said of the queue, from so often on in this history; and what every start was decided under. */
  private readonly saysMuch: boolean
  private rules: QueueRules = noRules
  private readonly decided = new Map<RunId, { readonly limit: number; readonly isRated: boolean }>()
  private queueStarts: Array<number> = []
  readonly stored = new Map<RunId, StoredRun>()
  /** Starts that `stored` does not show, by slot. */
  private readonly rolls = new Map<number, ReadonlyArray<RunStart>>()
  readonly final = new Map<RunId, RunFinish>()
  readonly executing = new Map<RunId, { readonly worker: string; readonly assignment: Assignment }>()
  readonly enqueued = new Set<RunId>()
  readonly cancelAsked = new Set<RunId>()
  private machine: QueueMachine
  private epoch = 1
  private now = 1_000
  private readonly random: () => number
  private pending = new Map<RunId, Entry>()
  private sent: Array<Entry> | undefined
  private inserts: Array<StoredRun> = []
  private sentInserts: Array<StoredRun> = []
  private duplicates: ReadonlySet<RunId> = new Set()
  private reads: Array<{ readonly load: Load; readonly rows: ReadonlyArray<StoredRun>; readonly complete: boolean }> =
    []
  private free = new Map(workers.map((worker) => [worker, 3]))

  constructor(readonly seed: number) {
    this.random = makeRandom(seed)
    this.shareKeyed = seed % 3 === 0 ? 0 : seed % 3 === 1 ? 0.5 : 0.95
    this.saysMuch = seed % 2 === 0
    this.machine = this.takeOver()
  }

  run() {
    for (let step = 0; step < stepsPerHistory; step++) {
      this.step()
      if (step % 5 === 0) this.account()
    }
    // Quiet down: everything that can end, ends.
    this.say(noRules)
    for (let round = 0; this.final.size < this.enqueued.size; round++) {
      assert.isBelow(round, 5_000, `seed ${this.seed}: ${this.enqueued.size - this.final.size} runs never end`)
      this.now += 20
      this.turn()
      this.commit()
      this.commit()
      this.readAll()
      for (const { assignment, worker } of [...this.executing.values()]) this.end(worker, assignment, "success")
    }
    this.turn()
    this.commit()
    this.commit()
    this.readAll()
    this.turn()
    assert.isTrue(this.machine.isIdle, `seed ${this.seed}: machine keeps something`)
    assert.strictEqual(this.stored.size, 0)
    assert.strictEqual(this.machine.runningCount, 0)
  }

  private step() {
    const dice = this.random()
    if (dice < 0.3) this.enqueue(1 + Math.floor(this.random() * 4))
    else if (dice < 0.5) this.commit()
    else if (dice < 0.62) this.readOne()
    else if (dice < 0.8) this.endOne()
    else if (dice < 0.86) this.cancelOne()
    else if (dice < 0.9) this.loseWorker()
    else if (dice < 0.91) this.machine = this.takeOver()
    else if (dice < 0.93) this.sendAgain()
    else if (dice < 0.95) this.announceOne()
    else if (dice < 0.97 && this.saysMuch) this.sayAnything()
    else this.now += Math.floor(this.random() * 40)
    this.turn()
  }

  private sayAnything() {
    const pause = { by: "people", why: "", at: this.now }
    const ofKey = (of: KeyOf) => this.random() < 0.3 ? [{ of, pause }] : []
    const { rate } = this.rules
    const hasRate = this.random() < 0.2 ? rate === undefined : rate !== undefined
    this.say({
      ...noRules,
      ...this.random() < 0.3 ? { paused: pause } : {},
      ...this.random() < 0.5 ? { concurrency: 1 + Math.floor(this.random() * 5) } : {},
      ...hasRate ? { rate: { limit: 3, perMs: 40 } } : {},
      pausedKeys: [
        ...ofKey({ kind: "fairness", key: "t1" }),
        ...ofKey({ kind: "ordering", key: "o1" }),
        ...ofKey({ kind: "concurrency", name: "k", key: "two" })
      ]
    })
  }

  private say(rules: QueueRules) {
    if (rules.rate === undefined) this.queueStarts = []
    this.rules = rules
    for (const [id, { isRated, limit }] of this.decided) {
      this.decided.set(id, {
        limit: Math.max(limit, rules.concurrency ?? Infinity),
        isRated: isRated && rules.rate !== undefined
      })
    }
    this.machine.configure(rules, this.now)
    this.collect()
  }

  /** A start was decided: nothing that is said of the queue forbids it. */
  private checkRules(run: StoredRun) {
    const { concurrency = Infinity, paused, pausedKeys } = this.rules
    assert.isUndefined(paused, `seed ${this.seed}: ${run.id} starts in a paused queue`)
    assert.isAtMost(this.machine.runningCount, concurrency, `seed ${this.seed}: the queue is over its limit`)
    const closed = pausedKeys.find(({ of }) => run.keys?.includes(JSON.stringify(of.key)) === true)
    assert.isUndefined(closed, `seed ${this.seed}: ${run.id} starts, its key is paused`)
  }

  private turn() {
    if (this.now >= this.adoptUntil) {
      // They have interrupted what they hold, before the owner gives it to others.
      for (const [id, { worker }] of this.executing) if (this.silent.has(worker)) this.executing.delete(id)
      for (const worker of this.silent) this.free.set(worker, 3)
      this.silent.clear()
    }
    this.machine.tick(this.now)
    this.collect()
    this.machine.dispatch(this.now, {
      take: () => {
        const worker = workers.find((each) => this.free.get(each)! > 0)
        if (worker !== undefined) this.free.set(worker, this.free.get(worker)! - 1)
        return worker
      }
    })
    this.collect()
  }

  /** No run in memory is forgotten, and memory and store agree whenever nothing is on its way. */
  private account() {
    const writing = { waiting: this.pending.values(), sent: this.sent ?? [] }
    assert.deepStrictEqual(reconcile(this.machine, writing).examples, [], `seed ${this.seed}`)
    const wanted = this.inserts.length + this.sentInserts.length > 0 ? undefined : expected(this.machine)
    if (wanted === undefined) return
    const isUpTo = (edge: { readonly key: number; readonly seq: number }, key: number, seq: number) =>
      key < edge.key || (key === edge.key && seq <= edge.seq)
    const ready = new Map<string, number>()
    let timers = 0
    let running = 0
    for (const run of this.stored.values()) {
      if (run.state === "running") running += 1
      else if (!isInLine(run)) timers += isUpTo(wanted.timers, run.scheduledAt, run.seq) ? 1 : 0
      else {
        const line = lineOf(run.task, run.keys)
        const edge = wanted.ready.get(line)
        const counts = edge === undefined || isUpTo(edge, run.orderKey, run.seq)
        ready.set(line, (ready.get(line) ?? 0) + (counts ? 1 : 0))
      }
    }
    assert.deepStrictEqual(missing(wanted, { ready, timers, running }).examples, [], `seed ${this.seed}`)
  }

  private enqueue(count: number) {
    for (let n = 0; n < count; n++) {
      const delay = this.random() < 0.3 ? Math.floor(this.random() * 200) : 0
      const priority = Math.floor(this.random() * 3)
      const scheduledAt = this.now + delay
      const id = unsafeMakeRunId(this.now)
      const seq = this.machine.numbers.next()
      const task = tasks[Math.floor(this.random() * tasks.length)]!
      const keys = this.random() < this.shareKeyed ? keysText[Math.floor(this.random() * keysText.length)]! : null
      this.enqueued.add(id)
      this.inserts.push({
        id,
        seq,
        task,
        priority,
        createdAt: this.now,
        payload: "{}",
        policy,
        keys,
        state: delay === 0 ? "ready" : "scheduled",
        scheduledAt,
        orderKey: this.machine.orderKeyOf({ line: lineOf(task, keys), scheduledAt, priority, seq }),
        attempt: 0,
        crashes: 0,
        lease: 0,
        worker: null,
        failure: null,
        startedAt: null
      })
    }
  }

  /** A client that had no answer, as after a take-over: as the shell does, only what it does not know goes to the store. */
  private sendAgain() {
    const all = [...this.stored.values()]
    const run = all[Math.floor(this.random() * all.length)]
    const isUnanswered = run !== undefined && [...this.inserts, ...this.sentInserts].some((each) => each.id === run.id)
    if (run === undefined || this.machine.knows(run.id) || isUnanswered) return
    const seq = this.machine.numbers.next()
    const orderKey = run.keys !== null && isOrdered(lineOf(run.task, run.keys)) ? seq : run.orderKey
    this.inserts.push({ ...run, seq, orderKey, state: "ready", attempt: 0, lease: 0 })
  }

  /** A worker comes back to the new owner and tells what it still runs. */
  private announceOne() {
    const [worker] = this.silent
    if (worker === undefined) return
    this.silent.delete(worker)
    const held = [...this.executing.values()].filter((each) => each.worker === worker)
    const { stale } = this.machine.announce(worker, held.map(({ assignment }) => ({ ...assignment, partitionId: 1 })))
    for (const { runId } of stale) this.executing.delete(runId)
    this.free.set(worker, 3 - held.length + stale.length)
    this.collect()
  }

  private collect() {
    const { out } = this.machine
    for (const entry of out.writes.splice(0)) {
      assert.isFalse(this.pending.has(entry.id), `seed ${this.seed}: in line to be written twice`)
      this.pending.set(entry.id, entry)
      if (!entry.isGated) continue
      this.checkRules(this.stored.get(entry.id)!)
      const { concurrency = Infinity, rate } = this.rules
      this.decided.set(entry.id, { limit: concurrency, isRated: rate !== undefined })
      this.checkOrder(this.stored.get(entry.id)!)
      this.checkRates(this.stored.get(entry.id)!, "bucket")
    }
    for (const worker of out.freed.splice(0)) {
      if (!this.silent.has(worker)) this.free.set(worker, Math.min(3, this.free.get(worker)! + 1))
    }
    for (const { assignment, worker } of out.assignments.splice(0)) this.started(worker, assignment)
    for (const { attempt, worker } of out.cancels.splice(0)) {
      const held = this.executing.get(attempt.runId)
      if (held?.worker === worker && held.assignment.lease === attempt.lease && this.random() < 0.7) {
        this.end(worker, held.assignment, "cancelled")
      }
    }
    for (const load of out.loads.splice(0)) this.reads.push({ load, ...this.snapshot(load) })
  }

  private started(worker: string, assignment: Assignment) {
    const id = assignment.runId
    const run = this.stored.get(id)
    assert.isDefined(run, `seed ${this.seed}: assigned a run that is not committed`)
    assert.isFalse(this.final.has(id), `seed ${this.seed}: assigned a final run`)
    assert.isFalse(this.executing.has(id), `seed ${this.seed}: two live attempts of ${id}`)
    assert.isAtMost(run.scheduledAt, this.now, `seed ${this.seed}: early`)
    this.checkKeys(run, lineOf(run.task, run.keys))
    // With limits it was decided before, and has waited for its mark to be durable.
    const decided = this.decided.get(id)
    if (decided === undefined) {
      this.checkOrder(run)
      this.checkRules(run)
      const { concurrency, rate } = this.rules
      assert.isUndefined(concurrency ?? rate, `seed ${this.seed}: told under a limit before its mark is durable`)
    } else {
      assert.isBelow(this.executing.size, decided.limit, `seed ${this.seed}: more of the queue run than may`)
      if (decided.isRated) this.checkQueueRate(this.rules.rate!)
    }
    this.executing.set(id, { worker, assignment })
  }

  private checkQueueRate({ limit, perMs }: QueueRate) {
    this.queueStarts.push(this.now)
    const within = this.queueStarts.filter((at) => at > this.now - perMs)
    assert.isAtMost(within.length, limit, `seed ${this.seed}: ${within.length} starts of the queue in ${perMs} ms`)
  }

  private checkOrder(run: StoredRun) {
    const { id } = run
    const line = lineOf(run.task, run.keys)
    for (const other of this.stored.values()) {
      const isAhead = lineOf(other.task, other.keys) === line && other.state === "ready" && other.id !== id
        && (other.orderKey < run.orderKey || (other.orderKey === run.orderKey && other.seq < run.seq))
      if (!isAhead || this.executing.has(other.id) || this.pending.has(other.id)) continue
      if (this.sent?.some((entry) => entry.id === other.id) === true || this.sentInserts.includes(other)) continue
      assert.fail(`seed ${this.seed}: ${id} was started before ${other.id}`)
    }
  }

  /** No limit is exceeded by this start, and no other run of its ordering key is before it or under way. */
  private checkKeys(run: StoredRun, line: string) {
    const told = run.keys === null ? {} : JSON.parse(run.keys) as RunKeys
    const running = [...this.executing.keys()].flatMap((id) => this.stored.get(id) ?? [])
    for (const { key, limit, name } of told.limits ?? []) {
      const others = running.filter((other) => other.keys?.includes(`"name":"${name}","key":"${key}"`) === true)
      assert.isBelow(others.length, limit, `seed ${this.seed}: ${name}|${key} is over its limit`)
    }
    if (isOrdered(line)) {
      const before = [...this.stored.values()].find((other) =>
        other.id !== run.id && lineOf(other.task, other.keys) === line
        && (other.seq < run.seq || this.executing.has(other.id)) && !this.sentInserts.includes(other)
      )
      assert.isUndefined(before, `seed ${this.seed}: ${run.id} overtakes ${before?.id} of its ordering key`)
    }
    this.checkRates(run, "window")
  }

  /** A window counts when workers are told, a bucket when it is decided. */
  private checkRates(run: StoredRun, kind: "window" | "bucket") {
    const told = run.keys === null ? {} : JSON.parse(run.keys) as RunKeys
    for (const { algorithm = "window", key, limit, name, perMs } of told.rates ?? []) {
      if (algorithm !== kind) continue
      const starts = this.starts.get(`${name}|${key}`) ?? []
      this.starts.set(`${name}|${key}`, starts)
      starts.push(this.now)
      // A bucket may give all it holds at once, and what has come in since.
      const most = algorithm === "bucket" ? 2 * limit : limit
      const within = starts.filter((at) => at > this.now - perMs)
      assert.isAtMost(
        within.length,
        most,
        `seed ${this.seed}: ${within.length} starts of ${name}|${key} in ${perMs} ms`
      )
    }
  }

  private endOne() {
    const all = [...this.executing.values()]
    const one = all[Math.floor(this.random() * all.length)]
    if (one === undefined) return
    const dice = this.random()
    this.end(one.worker, one.assignment, dice < 0.6 ? "success" : dice < 0.85 ? "failure" : "interrupted")
  }

  private end(_worker: string, assignment: Assignment, kind: "success" | "failure" | "interrupted" | "cancelled") {
    this.executing.delete(assignment.runId)
    this.decided.delete(assignment.runId)
    const outcome = kind === "success"
      ? { _tag: "success", result: "1" } as const
      : kind === "failure"
      ? { _tag: "failure", failure: { kind: "defect", tag: "E", message: "" }, retryable: true } as const
      : { _tag: kind } as const
    const first = this.machine.outcome(assignment, outcome, this.now)
    this.collect()
    if (first !== undefined) {
      assert.isUndefined(this.machine.outcome(assignment, outcome, this.now), `seed ${this.seed}: accepted twice`)
    }
  }

  private cancelOne() {
    const all = [...this.enqueued].filter((id) => this.stored.has(id))
    const id = all[Math.floor(this.random() * all.length)]
    if (id === undefined) return
    this.cancelAsked.add(id)
    if (this.machine.cancel(id, this.now) === "unknown") {
      const run = this.stored.get(id)
      if (run !== undefined) this.machine.cancelStored(run)
    }
    this.collect()
  }

  private loseWorker() {
    const worker = workers[Math.floor(this.random() * workers.length)]!
    for (const [id, held] of this.executing) if (held.worker === worker) this.executing.delete(id)
    this.silent.delete(worker)
    this.machine.doubt(worker, this.now)
    this.machine.tick(this.now)
    this.collect()
    this.free.set(worker, 3)
  }

  /** One batch in flight, as the shell does: sends what waits, or takes in the answer of what was sent. */
  private commit() {
    if (this.sent === undefined) {
      this.sent = [...this.pending.values()]
      this.pending = new Map()
      this.sentInserts = this.inserts.splice(0)
      this.duplicates = new Set(
        this.sentInserts.map((run) => run.id).filter((id) => this.stored.has(id) || this.final.has(id))
      )
      for (const run of this.sentInserts) if (!this.duplicates.has(run.id)) this.stored.set(run.id, run)
      // Every fourth history has its starts written run by run.
      const roll = this.seed % 4 === 3 ? undefined : this.machine.changes.rolls.begin()
      for (const entry of this.sent) this.apply(entry, roll)
      if (roll?.written !== undefined) this.rolls.set(roll.written.slot, roll.written.starts)
      return
    }
    const { sent, sentInserts } = this
    this.sent = undefined
    this.sentInserts = []
    for (const run of sentInserts) if (!this.duplicates.has(run.id)) this.machine.admitNew(run)
    for (const entry of sent) this.machine.committed(entry)
    this.turn()
  }

  private apply(entry: Entry, roll: Roll | undefined) {
    const before = this.stored.get(entry.id)
    assert.isDefined(before, `seed ${this.seed}: wrote a run that is gone`)
    const updates: Array<RunUpdate> = []
    const finishes: Array<RunFinish> = []
    this.machine.changes.send(entry, updates, finishes, roll)
    assert.strictEqual(updates.length + finishes.length + (roll !== undefined && entry.roll === roll ? 1 : 0), 1)
    for (const finish of finishes) {
      assert.isFalse(this.final.has(finish.id), `seed ${this.seed}: two final states`)
      if (finish.state === "cancelled") assert.isTrue(this.cancelAsked.has(finish.id))
      this.final.set(finish.id, finish)
      this.stored.delete(finish.id)
    }
    for (const update of updates) this.stored.set(update.id, { ...before, ...update })
  }

  private snapshot(load: Load) {
    const isTimer = load.line === undefined
    const keyOf = (run: StoredRun) => isTimer ? run.scheduledAt : run.orderKey
    const rows = [...this.stored.values()]
      .filter((run) =>
        isTimer
          ? waitsForTime(run)
          : isInLine(run) && lineOf(run.task, run.keys) === load.line
      )
      .filter((run) => keyOf(run) > load.afterKey || (keyOf(run) === load.afterKey && run.seq > load.afterSeq))
      .sort((a, b) => keyOf(a) - keyOf(b) || a.seq - b.seq)
    return { rows: rows.slice(0, load.limit), complete: rows.length <= load.limit }
  }

  private readonly arrivals = {
    isArriving: (id: RunId, seq: number) => this.sentInserts.some((run) => run.id === id && run.seq === seq)
  }

  private readOne() {
    const read = this.reads.shift()
    if (read === undefined) return
    if (this.random() < 0.1) this.machine.loadFailed(read.load.line)
    else this.machine.loaded(read.load.line, read.rows, read.complete, this.arrivals)
  }

  private readAll() {
    for (const read of this.reads.splice(0)) {
      this.machine.loaded(read.load.line, read.rows, read.complete, this.arrivals)
    }
  }

  /** As a store does where the epoch is raised. */
  private showStarts() {
    for (const start of [...this.rolls.values()].flat()) {
      const run = this.stored.get(start.id)
      if (run !== undefined && run.lease < start.lease) this.stored.set(run.id, { ...run, ...start, state: "running" })
    }
    this.rolls.clear()
  }

  /** The owner dies with what it had not committed; unacknowledged inserts are gone, workers are lost. */
  private takeOver(): QueueMachine {
    for (const run of this.inserts.splice(0)) if (!this.stored.has(run.id)) this.enqueued.delete(run.id)
    this.sent = undefined
    this.sentInserts = []
    this.pending = new Map()
    this.reads = []
    // Half of the time the workers live on: what they run under limits is known to the new owner by the store alone.
    const areAlive = this.random() < 0.5
    this.silent = new Set(areAlive ? workers : [])
    this.adoptUntil = this.now + 30
    for (const id of this.executing.keys()) {
      if (!areAlive || !this.decided.has(id)) this.executing.delete(id)
    }
    for (const id of this.decided.keys()) if (!this.executing.has(id)) this.decided.delete(id)
    this.free = new Map(workers.map((worker) => [worker, areAlive ? 0 : 3]))
    this.showStarts()
    const all = [...this.stored.values()]
    return new QueueMachine(
      {
        partitionId: 1,
        epoch: this.epoch++,
        agingStepMs: 30,
        maxCrashes: 3,
        window: { runsMax: 3, bytesMax: 1e6 },
        rules: this.rules
      },
      {
        now: this.now,
        lines: [...new Set(all.filter(isInLine).map((run) => lineOf(run.task, run.keys)))],
        hasTimers: all.some(waitsForTime),
        running: all.filter((run) => run.state === "running"),
        adoptUntil: this.now + 30
      }
    )
  }
}

const isWaiting = (run: StoredRun) => run.state === "scheduled" || run.state === "retrying"
const isInLine = (run: StoredRun) => run.state === "ready" || (isWaiting(run) && isOrdered(lineOf(run.task, run.keys)))
const waitsForTime = (run: StoredRun) => isWaiting(run) && !isInLine(run)

const replayed = Number(process.env["SEED"] ?? Number.NaN)

describe("QueueMachine", () => {
  it(`keeps order, single attempts and every run over ${histories} random histories`, () => {
    const seeds = Number.isNaN(replayed) ? Array.from({ length: histories }, (_, seed) => seed + 1) : [replayed]
    for (const seed of seeds) {
      const history = new History(seed)
      try {
        history.run()
      } catch (error) {
        throw new Error(`history with SEED=${seed} failed: ${error instanceof Error ? error.message : String(error)}`, {
          cause: error
        })
      }
    }
  }, 60_000)

  const machineOf = (running: ReadonlyArray<StoredRun> = []) =>
    new QueueMachine(
      { partitionId: 7, epoch: 3, agingStepMs: 1_000, maxCrashes: 3, window: { runsMax: 100, bytesMax: 1e6 } },
      { now: 0, lines: [], hasTimers: false, running, adoptUntil: 2_000 }
    )
  const stored = (machine: QueueMachine, change: Partial<StoredRun> = {}): StoredRun => ({
    id: unsafeMakeRunId(1),
    seq: machine.numbers.next(),
    task: "a",
    priority: 5,
    createdAt: 0,
    payload: "{}",
    policy,
    keys: null,
    state: "ready",
    scheduledAt: 0,
    orderKey: 5_000,
    attempt: 0,
    crashes: 0,
    lease: 0,
    worker: null,
    failure: null,
    startedAt: null,
    ...change
  })
  const one = { take: () => "w" }
  /** Commits all that waits; answers the ends. */
  const settleAll = (machine: QueueMachine): ReadonlyArray<RunFinish> => {
    const finishes: Array<RunFinish> = []
    for (const entry of machine.out.writes.splice(0)) {
      machine.changes.send(entry, [], finishes)
      machine.committed(entry)
    }
    return finishes
  }
  const firstAssignment = (machine: QueueMachine) => machine.out.assignments.splice(0)[0]!.assignment

  it("hands out lease numbers that grow with every grant", () => {
    const machine = machineOf()
    machine.admitNew(stored(machine))
    machine.dispatch(1, one)
    const first = firstAssignment(machine)
    machine.outcome(first, { _tag: "interrupted" }, 2)
    settleAll(machine)
    machine.dispatch(3, one)
    const second = firstAssignment(machine)

    assert.strictEqual(second.attempt, first.attempt)
    assert.isAbove(second.lease, first.lease)
    assert.isUndefined(machine.outcome(first, { _tag: "success", result: "1" }, 4))
  })

  it("quarantines a run whose workers keep dying", () => {
    const machine = machineOf()
    machine.admitNew(stored(machine))
    let ends: ReadonlyArray<RunFinish> = []
    for (let n = 0; n < 3; n++) {
      machine.dispatch(n, one)
      machine.doubt("w", n)
      machine.tick(n)
      ends = settleAll(machine)
    }

    assert.deepStrictEqual(ends.map((end) => end.state), ["failed"])
    assert.include(ends[0]!.failure, "crashed")
    assert.include(ends[0]!.failure, "PoisonRun")
    assert.include(ends[0]!.failure, "as workers were 3 times: it is not tried again")
  })

  it("does not let runs that nobody can execute hide others", () => {
    const machine = machineOf()
    for (let n = 0; n < 50; n++) machine.admitNew(stored(machine, { task: "nobody", orderKey: n }))
    machine.admitNew(stored(machine, { task: "a", orderKey: 99 }))
    machine.dispatch(1, { take: (task) => task === "a" ? "w" : undefined })

    assert.strictEqual(firstAssignment(machine).task, "a")
  })

  /** A backlog in the store of `tasks` that are all due at 1,000, and the machine that reads it in pages. */
  const dueBacklog = (tasks: ReadonlyArray<string>) => {
    const machine = new QueueMachine(
      { partitionId: 7, epoch: 3, agingStepMs: 1_000, maxCrashes: 3, window: { runsMax: 100, bytesMax: 1e6 } },
      { now: 0, lines: [], hasTimers: true, running: [], adoptUntil: 0 }
    )
    const rows = tasks.map((task) => stored(machine, { task, state: "scheduled", scheduledAt: 1_000, orderKey: 6_000 }))
    const read = (): number => {
      const loads = machine.out.loads.splice(0)
      for (const load of loads) {
        const rest = load.line === undefined ? rows.filter((row) => row.seq > load.afterSeq) : []
        machine.loaded(load.line, rest.slice(0, load.limit), rest.length <= load.limit)
      }
      return loads.length
    }
    machine.tick(0)
    read()
    return { machine, read }
  }

  it("starts thousands that are due at once without writing them down as ready first", () => {
    const { machine, read } = dueBacklog(Array.from({ length: 2_000 }, () => "a"))
    let started = 0
    for (let turn = 0; started < 2_000; turn++) {
      assert.isBelow(turn, 1_000)
      machine.tick(1_000)
      let slots = 20
      machine.dispatch(1_000, { take: () => slots-- > 0 ? "w" : undefined })
      assert.isAtMost(machine.entryCount, 400)
      for (const { assignment } of machine.out.assignments.splice(0)) {
        started += 1
        machine.outcome(assignment, { _tag: "success", result: "1" }, 1_000)
      }
      assert.isTrue(machine.out.writes.every((entry) => entry.unwritten === "finish"))
      settleAll(machine)
      read()
    }
    assert.strictEqual(machine.nextTick(), Infinity)
  })

  it("lets due runs that nobody can execute hold others up for a moment only", () => {
    const { machine, read } = dueBacklog([...Array.from({ length: 300 }, () => "nobody"), "a"])
    const only = { take: (task: string) => task === "a" ? "w" : undefined }
    let now = 1_000
    for (let turn = 0; machine.out.assignments.length === 0; turn++) {
      assert.isBelow(turn, 20)
      machine.tick(now)
      machine.dispatch(now, only)
      settleAll(machine)
      if (machine.out.assignments.length === 0 && read() === 0) now = Math.min(machine.nextTick(), now + 1_000)
    }

    assert.strictEqual(firstAssignment(machine).task, "a")
    assert.isAtMost(now, 1_600)
  })

  it("takes a timed out attempt away from a worker that does not answer", () => {
    const machine = machineOf()
    const timed = JSON.stringify({ retry: RetryPolicy.none, timeoutMs: 100 })
    machine.admitNew(stored(machine, { policy: timed }))
    machine.dispatch(0, one)
    const attempt = firstAssignment(machine)
    machine.tick(machine.nextTick())

    assert.isFalse(machine.holds(attempt))
    assert.strictEqual(machine.out.cancels.length, 1)
    assert.deepStrictEqual(settleAll(machine).map((end) => [end.state, end.keep]), [["failed", true]])
  })

  it("keeps nothing of a success where the task wants no history, but all of a failure", () => {
    const machine = machineOf()
    const gone = JSON.stringify({ retry: RetryPolicy.none, timeoutMs: 0, retention: "none" })
    for (let n = 0; n < 2; n++) machine.admitNew(stored(machine, { policy: gone }))
    machine.dispatch(0, one)
    const [first, second] = machine.out.assignments.splice(0).map((each) => each.assignment)
    machine.outcome(first!, { _tag: "success", result: "1" }, 1)
    machine.outcome(second!, { _tag: "cancelled" }, 1)
    machine.outcome(
      second!,
      { _tag: "failure", failure: { kind: "defect", tag: "E", message: "" }, retryable: true },
      1
    )

    assert.deepStrictEqual(settleAll(machine).map((end) => [end.state, end.keep]), [["succeeded", false]])
    machine.dispatch(2, one)
    const [again] = machine.out.assignments.splice(0).map((each) => each.assignment)
    machine.outcome(again!, { _tag: "failure", failure: { kind: "defect", tag: "E", message: "" }, retryable: true }, 3)
    assert.deepStrictEqual(settleAll(machine).map((end) => [end.state, end.keep]), [["failed", true]])
  })

  it("takes a new run in once, though a page shows it before its commit is answered", () => {
    const machine = new QueueMachine(
      { partitionId: 7, epoch: 3, agingStepMs: 1_000, maxCrashes: 3, window: { runsMax: 10, bytesMax: 1e6 } },
      { now: 0, lines: ["a"], hasTimers: false, running: [], adoptUntil: 0 }
    )
    const run = stored(machine)
    machine.tick(0)
    const earlier = stored(machine)
    const isArriving = (id: RunId, seq: number) =>
      (id === run.id && seq === run.seq) || id === earlier.id && seq !== earlier.seq
    machine.loaded("a", [run, earlier], true, { isArriving })
    machine.dispatch(1, one)
    // The other one came with an earlier copy of a request that is arriving again: a run like any other.
    assert.strictEqual(firstAssignment(machine).runId, earlier.id)
    assert.deepStrictEqual(machine.out.assignments, [])
    machine.outcome({ partitionId: 7, runId: earlier.id, attempt: 1, lease: machine.find(earlier.id)!.lease }, {
      _tag: "success",
      result: "1"
    }, 2)

    machine.admitNew(run)
    machine.dispatch(2, one)
    machine.outcome(firstAssignment(machine), { _tag: "success", result: "1" }, 3)
    settleAll(machine)
    assert.isTrue(machine.isIdle)
  })

  it("writes once what changes twice before it is sent, and again what changes afterwards", () => {
    const machine = machineOf()
    machine.admitNew(stored(machine))
    machine.dispatch(1, one)
    const attempt = firstAssignment(machine)
    const updates: Array<RunUpdate> = []
    const [entry] = machine.out.writes.splice(0)
    machine.changes.send(entry!, updates, [])
    assert.deepStrictEqual(updates.map((each) => each.state), ["running"])
    machine.changes.notSent(entry!)
    machine.outcome(attempt, { _tag: "success", result: "1" }, 2)
    assert.deepStrictEqual(machine.out.writes, [entry!])
    assert.deepStrictEqual(settleAll(machine).map((end) => end.state), ["succeeded"])
    assert.isTrue(machine.isIdle)
  })

  it.effect("answers a cancel of a running run with a request, and of a waiting one with the end", () =>
    Effect.sync(() => {
      const machine = machineOf()
      const waiting = stored(machine, { task: "b" })
      const running = stored(machine)
      machine.admitNew(waiting)
      machine.admitNew(running)
      machine.dispatch(0, { take: (task) => task === "a" ? "w" : undefined })

      const answerOf = (answer: "unknown" | { readonly answer: string; readonly entry: Entry }) =>
        answer === "unknown" ? answer : answer.answer

      assert.strictEqual(answerOf(machine.cancel(running.id, 1)), "requested")
      assert.strictEqual(answerOf(machine.cancel(waiting.id, 1)), "cancelled")
      assert.strictEqual(answerOf(machine.cancel(unsafeMakeRunId(5), 1)), "unknown")
    }))
})
