/**
 * Identity, depth and edits against their promises, over random histories: the real actor on the store in memory, with commits and reads
 * whose effect and answer come when the history says so, outcomes, owners that die between any two steps, and requests that are sent
 * again until they are answered. `SEED=n` replays one history.
 */
import { assert, describe, it } from "@effect/vitest"
import { Fenced } from "@orrery/core/Errors"
import type { IdentityRule } from "@orrery/core/Identity"
import { type CommitResult, fromSubmit, type JournalBatch, type StoredRun } from "@orrery/core/Journal"
import { MemoryTables } from "@orrery/core/MemoryTables"
import { unset } from "@orrery/core/QueueSettings"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import { type RunId, unsafeMakeRunId } from "@orrery/core/RunId"
import type { Backlog, RunRequest } from "@orrery/core/RunRequest"
import * as StartLimits from "@orrery/core/StartLimits"
import type { Assignment, AttemptRef } from "@orrery/core/WorkerProtocol"
import { Effect, Exit } from "effect"
import { type ActorHost, type RowAnswer, SameAs } from "../src/ActorHost.js"
import { ActorTurns } from "../src/ActorTurns.js"
import type { DatabaseClock } from "../src/DatabaseClock.js"
import { QueueActor } from "../src/QueueActor.js"

const histories = 150
const steps = 160
const name = { namespace: "default", queue: "q", partition: 0 }
const worker = "w"

const random = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const all = ["scheduled", "ready", "retrying", "running"] as const
const rules: Readonly<Record<string, IdentityRule>> = {
  window: { _tag: "window", windowMs: 150 },
  states: { _tag: "states", states: all },
  waiting: { _tag: "states", states: ["scheduled", "ready"] },
  debounce: { _tag: "debounce", quietMs: 40, maxWaitMs: 120 },
  keepLast: { _tag: "keepLast" }
}
const backlog: Backlog = { maxDepth: 8, maxDepthPerTenant: 4 }
/** What a task may say that does not count. */
const looser = (isSilent: boolean) => isSilent ? {} : { backlog: { maxDepth: 1_000 } }
const retry = RetryPolicy.fixed({ maxAttempts: 3, delay: 30, jitter: 0 })
const turn = () => new Promise<void>((done) => setImmediate(done))

interface Asked {
  request: RunRequest
  /** Numbers of its first sending and of its last one. */
  firstSent: number
  sent: number
  isUnderWay: boolean
  answer: RunId | "refused" | undefined
  /** Number of the sending that was carried out. */
  answeredAs: number
}

/** Places in the order in which the test has seen things happen. `Infinity`: not yet. */
interface EditAsked {
  readonly id: RunId
  readonly payload: string | undefined
  readonly hasTime: boolean
  readonly askedAt: number
  ackedAt: number
  scheduledAt: number
}

/** What an actor has handed to the store and not been answered. */
interface Call {
  /** Carries it out. */
  readonly apply: () => void
  readonly answer: () => void
  isApplied: boolean
}

class History {
  private readonly random: () => number
  private readonly tables = new MemoryTables(Infinity)
  private readonly asked = new Map<RunId, Asked>()
  private readonly out = new Map<RunId, Assignment>()
  private readonly begun = new Map<RunId, string>()
  private readonly everBegun = new Set<RunId>()
  private readonly tenants = new Map<RunId, string>()
  private readonly claims = new Map<string, Array<number>>()
  private calls: Array<Call> = []
  private zombies: Array<Call> = []
  private actor!: QueueActor
  private life = 0
  private now = 10_000
  private sends = 0
  private free = 4
  readonly isBounded: boolean
  private readonly editsAsked: Array<EditAsked> = []
  /** By lease. */
  private readonly begins = new Map<number, { readonly place: number; readonly now: number }>()
  private places = 0
  private readonly problems: Array<string> = []
  /** By the settings of the queue, which go before what its tasks say. */
  readonly isBoundedByQueue: boolean
  refused = 0
  same = 0
  edits = 0

  constructor(readonly seed: number) {
    this.random = random(seed)
    this.isBounded = seed % 3 === 0
    this.isBoundedByQueue = seed % 6 === 0
    if (!this.isBoundedByQueue) return
    const settings = { pausedKeys: [], override: { backlog } }
    this.tables.saveSettings({ ...unset(name), revision: 1, changedBy: "test", settings }, this.now)
  }

  async run(): Promise<void> {
    this.takeOver()
    for (let step = 0; step < steps; step++) {
      this.step()
      await turn()
      await turn()
    }
    for (
      let round = 0;
      [...this.asked.values()].some(({ answer }) => answer === undefined) || this.unfinished > 0;
      round++
    ) {
      assert.isBelow(round, 3_000, `seed ${this.seed}: never quiet`)
      this.now += 10
      for (const call of this.calls.splice(0)) this.carryOut(call)
      for (const ref of [...this.out.values()]) this.end(ref, "success")
      for (const each of this.asked.values()) if (!each.isUnderWay && each.answer === undefined) this.send(each)
      this.actor.schedule()
      await turn()
      await turn()
    }
    this.judge()
  }

  private get unfinished(): number {
    return this.tables.countRuns(this.actor.partitionId, 10_000).groups.reduce((sum, { runs }) => sum + runs, 0)
  }

  private step(): void {
    const dice = this.random()
    if (dice < 0.3) { for (let n = 1 + Math.floor(this.random() * 3); n > 0; n--) this.ask() }
    else if (dice < 0.6) this.someCall()
    else if (dice < 0.75) {
      const [ref] = this.pick([...this.out.values()])
      if (ref !== undefined) this.end(ref, this.random() < 0.8 ? "success" : "failure")
    } else if (dice < 0.8) {
      const [lost] = this.pick([...this.asked.values()].filter((each) => !each.isUnderWay && each.answer === undefined))
      if (lost !== undefined) this.send(lost)
    } else if (dice < 0.83) {
      const [found] = this.pick(
        [...this.asked.values()].filter(({ answer }) => answer !== undefined && answer !== "refused")
      )
      if (found !== undefined) Effect.runFork(Effect.ignore(this.actor.cancel(found.answer as RunId)))
    } else if (dice < 0.86) this.takeOver()
    else if (dice < 0.93) this.editOne()
    else this.now += Math.floor(this.random() * 50)
    this.actor.schedule()
  }

  private pick<A>(from: ReadonlyArray<A>): ReadonlyArray<A> {
    return from.length === 0 ? [] : [from[Math.floor(this.random() * from.length)]!]
  }

  private ask(): void {
    const id = unsafeMakeRunId(1_800_000_000_000)
    const [task] = this.pick([...Object.keys(rules), "plain"])
    const rule = rules[task!]
    const key = `k${Math.floor(this.random() * 2)}`
    const tenant = `t${Math.floor(this.random() * 3)}`
    const keys = rule?._tag === "keepLast" ? { order: `${task}|${key}` } : this.isBounded ? { tenant } : undefined
    if (keys !== undefined && "tenant" in keys) this.tenants.set(id, tenant)
    const request: RunRequest = {
      id,
      ...name,
      task: task!,
      payload: "",
      priority: 5,
      when: { _tag: "delay", ms: rule?._tag === "debounce" ? rule.quietMs : this.random() < 0.3 ? 50 : 0 },
      policy: JSON.stringify({
        retry,
        timeoutMs: 0,
        ...rule === undefined ? {} : { identity: rule },
        ...this.isBoundedByQueue ? looser(task === "plain") : this.isBounded ? { backlog } : {}
      }),
      keys: keys === undefined ? null : JSON.stringify(keys),
      ...rule === undefined ? {} : { identity: key },
      resend: false
    }
    const asked: Asked = {
      request: { ...request, payload: JSON.stringify(id) },
      firstSent: this.sends + 1,
      sent: 0,
      isUnderWay: false,
      answer: undefined,
      answeredAs: 0
    }
    this.asked.set(id, asked)
    this.send(asked)
  }

  private send(asked: Asked): void {
    const { life } = this
    const sent = ++this.sends
    asked.sent = sent
    asked.isUnderWay = true
    const request = { ...asked.request, resend: asked.request.resend }
    asked.request = { ...asked.request, resend: true }
    Effect.runFork(Effect.matchEffect(this.actor.enqueue([request]), {
      onFailure: () => Effect.sync(() => void (asked.isUnderWay = life === this.life ? false : asked.isUnderWay)),
      onSuccess: ([answer]) => Effect.sync(() => this.answered(asked, sent, answer!, life))
    }))
  }

  private answered(asked: Asked, sent: number, answer: RowAnswer, life: number): void {
    // Of an owner that is dead by now: the answer was on its way.
    if (asked.answer !== undefined || (life !== this.life && this.random() < 0.5)) return
    asked.isUnderWay = false
    // Sent again it is known for the one that made the run.
    asked.answeredAs = answer === "stored" ? asked.firstSent : sent
    if (answer === "stored" || answer instanceof SameAs) {
      const id = answer === "stored" ? asked.request.id : answer.id
      asked.answer = id
      const home = this.tables.find(id, this.now)
      assert(home, `seed ${this.seed}: ${id} was acknowledged and is not durable`)
      assert.strictEqual(home.task, asked.request.task)
      if (answer !== "stored") this.same += 1
      return
    }
    asked.answer = "refused"
    assert.include(["QueueFull", "QuotaExceeded"], answer._tag)
    this.refused += 1
  }

  private host(life: number): ActorHost {
    const call = <A>(look: () => A, done: (answer: A) => void): void => {
      let found: A
      const made: Call = {
        isApplied: false,
        apply: () => {
          found = look()
          made.isApplied = true
        },
        answer: () => done(found)
      }
      if (life === this.life) this.calls.push(made)
      else this.zombies.push(made)
    }
    const ask = <A>(look: () => A) => Effect.async<A>((resume) => call(look, (found) => resume(Effect.succeed(found))))
    const { tables } = this
    return {
      journal: fromSubmit((batch, done) => call((): CommitResult => this.commit(batch), done)),
      store: {
        takeOver: () => Effect.die("not used"),
        readLines: (pages) => ask(() => tables.readLines(pages)),
        readTimers: (page) => ask(() => tables.readTimers(page)),
        countBefore: () => Effect.die("not used"),
        findRun: (partitionId, id) => ask(() => tables.findRun(partitionId, id)),
        readIdentities: (partitionId, keys) => ask(() => tables.readIdentities(partitionId, keys)),
        pruneIdentities: (partitionId, limit) => ask(() => tables.pruneIdentities(partitionId, limit, this.now)),
        countRuns: (partitionId, limit) => ask(() => tables.countRuns(partitionId, limit)),
        epochs: () => Effect.die("not used"),
        now: Effect.sync(() => this.now),
        newerSettings: () => Effect.die("not used"),
        listWithWork: () => Effect.die("not used")
      },
      progress: {} as ActorHost["progress"],
      limits: StartLimits.none,
      partitionsOf: () => 1,
      clock: { now: () => this.now, observe: () => undefined } as unknown as DatabaseClock,
      turns: new ActorTurns(),
      workers: {
        poolFor: () => ({ take: () => life === this.life && this.free > 0 ? (this.free -= 1, worker) : undefined }),
        assign: (_, assignments) => {
          for (const each of assignments) this.begin(each)
        },
        interrupt: (_, attempts) => {
          for (const each of attempts) this.stop(each)
        },
        freed: (workers) => void (life === this.life && (this.free = Math.min(4, this.free + workers.length))),
        wanting: () => undefined
      },
      signals: { queue: () => ({ publish: () => undefined }) } as unknown as ActorHost["signals"],
      mayAct: () => true,
      overload: () => undefined,
      fork: (effect) => Effect.runFork(effect),
      makeAlarm: () => ({ set: () => undefined, stop: () => undefined }),
      agingStepMs: 10,
      maxCrashes: 100,
      adoptionGraceMs: 60,
      lostWorkerGraceMs: 60,
      payloadBytesMax: 1_000,
      windowRunsMax: 4,
      windowBytesMax: 1e6
    }
  }

  /** The owner dies, or is one of two for a while; then another one has its partition. */
  private takeOver(): void {
    this.life += 1
    this.zombies = this.calls
    this.calls = []
    for (const call of this.zombies) if (this.random() < 0.3) call.apply()
    const taken = this.tables.takeOver(name, this.now)
    for (const call of this.zombies) if (this.random() < 0.5) this.carryOut(call)
    this.free = 4
    for (const each of this.asked.values()) if (each.answer === undefined) each.isUnderWay = false
    this.actor = new QueueActor(name, taken, this.host(this.life))
    const held = [...this.out.values()].filter(() => this.random() < 0.7)
    // The worker is asked at once, or comes back too late.
    if (this.random() < 0.8) {
      const stale = this.actor.announce(worker, held)?.stale ?? []
      for (const ref of [...stale, ...this.out.values()].filter((each) => !held.includes(each as Assignment))) {
        this.stop(ref)
      }
    } else this.out.clear()
  }

  private someCall(): void {
    const [call] = this.pick(this.calls)
    if (call === undefined) return
    if (this.random() < 0.3) return call.isApplied ? undefined : call.apply()
    this.calls.splice(this.calls.indexOf(call), 1)
    this.carryOut(call)
  }

  private carryOut(call: Call): void {
    if (!call.isApplied) call.apply()
    call.answer()
  }

  private commit(batch: JournalBatch): CommitResult {
    const before = batch.inserts.filter(({ run }) => this.tables.find(run.id, this.now) === undefined)
    const committed = this.tables.commit(batch, this.now)
    if (committed === undefined) return Exit.fail(new Fenced({ partitionId: batch.partitionId, epoch: batch.epoch }))
    for (const { attempt, id } of batch.updates) if (attempt > 0) this.everBegun.add(id)
    for (const { id } of batch.roll?.starts ?? []) this.everBegun.add(id)
    this.edits += batch.updates.filter(({ edit }) => edit !== undefined).length
    for (const { claim, run } of before) {
      if (claim === undefined || committed.duplicates.has(run.id)) continue
      const id = `${run.task}|${claim.key}`
      this.claims.set(id, [...this.claims.get(id) ?? [], claim.firstAt])
    }
    this.look(batch.partitionId)
    return Exit.succeed(committed)
  }

  /** What must hold after every commit. */
  private look(partitionId: number): void {
    const runs: Array<StoredRun> = []
    for (const id of this.asked.keys()) {
      const run = this.tables.findRun(partitionId, id)
      if (run !== undefined) runs.push(run)
    }
    const of = (task: string, key: string) =>
      runs.filter((run) => run.task === task && this.asked.get(run.id)!.request.identity === key)
    // Also one whose attempt was interrupted, which does not count.
    const hasBegun = (run: StoredRun) => this.everBegun.has(run.id)
    for (const key of ["k0", "k1"]) {
      const told = `seed ${this.seed}: ${key}`
      assert.isAtMost(of("states", key).length, 1, `${told}: unique runs`)
      const waiting = of("waiting", key).filter(({ state }) => state === "scheduled" || state === "ready")
      // One that had begun may come back to wait beside it.
      assert.isAtMost(waiting.filter((run) => !hasBegun(run)).length, 1, `${told}: runs that wait`)
      assert.isAtMost(of("debounce", key).filter((run) => !hasBegun(run)).length, 1, `${told}: debounced runs`)
      assert.isAtMost(of("keepLast", key).filter((run) => !hasBegun(run)).length, 1, `${told}: runs kept behind`)
      assert.isAtMost(of("keepLast", key).filter(hasBegun).length, 1, `${told}: runs at once`)
    }
    if (!this.isBounded) return
    assert.isAtMost(runs.length, backlog.maxDepth, `seed ${this.seed}: depth`)
    for (const tenant of ["t0", "t1", "t2"]) {
      const count = runs.filter(({ id }) => this.tenants.get(id) === tenant).length
      assert.isAtMost(count, backlog.maxDepthPerTenant!, `seed ${this.seed}: depth of ${tenant}`)
    }
  }

  /** Payloads of tasks whose requests are one by them are left to these. */
  private editOne(): void {
    const [found] = this.pick(
      [...this.asked.values()].filter(({ answer }) => answer !== undefined && answer !== "refused")
    )
    if (found === undefined) return
    const { task } = found.request
    const payload = task === "debounce" || task === "keepLast" ? undefined : `${this.editsAsked.length}`
    const hasTime = task !== "debounce" && this.random() < 0.5
    const asked: EditAsked = {
      id: found.answer as RunId,
      payload,
      hasTime,
      askedAt: ++this.places,
      ackedAt: Infinity,
      scheduledAt: 0
    }
    this.editsAsked.push(asked)
    const edit = {
      priority: Math.floor(this.random() * 10),
      ...payload === undefined ? {} : { payload },
      ...hasTime ? { when: { _tag: "delay", ms: Math.floor(this.random() * 60) } as const } : {}
    }
    Effect.runFork(Effect.match(this.actor.desk.edit(asked.id, edit), {
      onFailure: () => undefined,
      onSuccess: (edited) => {
        if (edited === undefined) return
        asked.ackedAt = ++this.places
        asked.scheduledAt = edited.scheduledAt
      }
    }))
  }

  /** The outcome of this attempt counts: it began with the run as it was told to be. */
  private accepted({ lease, payload, runId }: Assignment): void {
    const begun = this.begins.get(lease)!
    const edits = this.editsAsked.filter(({ id }) => id === runId)
    const of = edits.find((each) => each.payload === payload)
    const known = of?.ackedAt ?? -1
    const missed = edits.find((each) =>
      each !== of && each.payload !== undefined && each.ackedAt < begun.place && known < each.askedAt
    )
    if (missed !== undefined) this.problems.push(`${runId} ran with ${payload}, not with edit ${missed.payload}`)
    const times = edits.filter(({ hasTime }) => hasTime)
    const last = times.at(-1)
    if (last === undefined || last.ackedAt > begun.place) return
    if (times.some((each) => each !== last && each.ackedAt > last.askedAt)) return
    if (begun.now < last.scheduledAt) this.problems.push(`${runId} ran at ${begun.now}, not at ${last.scheduledAt}`)
  }

  get editsAcked(): number {
    return this.editsAsked.filter(({ ackedAt }) => ackedAt < Infinity).length
  }

  private begin(assignment: Assignment): void {
    this.begins.set(assignment.lease, { place: ++this.places, now: this.now })
    this.out.set(assignment.runId, assignment)
    this.begun.set(assignment.runId, assignment.payload)
  }

  private stop({ lease, runId }: AttemptRef): void {
    if (this.out.get(runId)?.lease === lease) this.out.delete(runId)
  }

  private end(ref: Assignment, how: "success" | "failure"): void {
    this.stop(ref)
    const failure = { kind: "failure", tag: "No", message: "" } as const
    const outcome = how === "success"
      ? { _tag: how, result: "1" } as const
      : { _tag: how, failure, retryable: true } as const
    Effect.runFork(
      Effect.map(this.actor.report([{ ...ref, outcome }]), ([answer]) => {
        if (answer === "accepted") this.accepted(ref)
      })
    )
  }

  private judge(): void {
    assert.deepStrictEqual(this.problems, [], `seed ${this.seed}`)
    for (const [id, times] of this.claims) {
      if (!id.startsWith("window")) continue
      times.sort((a, b) => a - b).forEach((at, n) => {
        if (n > 0) assert.isAtLeast(at - times[n - 1]!, 150, `seed ${this.seed}: two runs of ${id} in a window`)
      })
    }
    for (const { answer, answeredAs, request: { task } } of this.asked.values()) {
      if (answer === undefined || answer === "refused") continue
      const run = this.tables.find(answer, this.now)!
      const payload = this.begun.get(answer)
      if (payload === undefined || run.state !== "succeeded" || (task !== "debounce" && task !== "keepLast")) continue
      const last = this.asked.get(JSON.parse(payload) as RunId)!
      assert.isAtLeast(last.sent, answeredAs, `seed ${this.seed}: ${answer} ran with a payload from before`)
    }
  }
}

describe("Intake", () => {
  it(
    "keeps what identity, depth and edits promise, over random histories and deaths of the owner",
    { timeout: 120_000 },
    async () => {
      const given = process.env["SEED"]
      const seeds = given === undefined ? Array.from({ length: histories }, (_, n) => n + 1) : [Number(given)]
      let [same, edits, refused, acked] = [0, 0, 0, 0]
      for (const seed of seeds) {
        const history = new History(seed)
        await history.run()
        same += history.same
        edits += history.edits
        refused += history.refused
        acked += history.editsAcked
      }
      // Else it has shown nothing.
      if (given === undefined) { for (const count of [same, edits, refused, acked]) assert.isAbove(count, 100) }
    }
  )
})
