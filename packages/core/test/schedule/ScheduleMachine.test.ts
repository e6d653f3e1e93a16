import { assert, describe, it } from "@effect/vitest"
import * as NextFire from "@orrery/core/schedule/NextFire"
import * as ScheduleMachine from "@orrery/core/schedule/ScheduleMachine"
import * as SchedulePolicy from "@orrery/core/schedule/SchedulePolicy"
import type { ScheduleSpec } from "@orrery/core/schedule/ScheduleSpec"
import type { ScheduleState, Step } from "@orrery/core/schedule/ScheduleState"
import { simulateSchedule } from "@orrery/core/schedule/simulateSchedule"
import { Either, FastCheck as fc } from "effect"

const minute = 60_000
const hour = 60 * minute
const t0 = Date.UTC(2026, 0, 1)

const compile = (spec: ScheduleSpec) => Either.getOrThrow(NextFire.compile(spec))
const everyHour = compile({ sources: [{ _tag: "rate", everyMs: hour }] })
const everyMinute = compile({ sources: [{ _tag: "rate", everyMs: minute }] })

const policyOf = (policy: Partial<SchedulePolicy.SchedulePolicy> = {}) => ({ ...SchedulePolicy.standard, ...policy })
const make = (policy: Partial<SchedulePolicy.SchedulePolicy> = {}, fires = everyHour) =>
  ScheduleMachine.make({ id: "default/report", policy: policyOf(policy), jitterMs: 0, maxFires: null }, fires, t0)

const words = ({ decisions }: Step) =>
  decisions.records.map(({ count, first, last, outcome, reason }) =>
    `${outcome} ${reason} ${(first - t0) / hour}${count > 1 ? `-${(last - t0) / hour} x${count}` : ""}`
  )

const applied = (state: ScheduleState, command: ScheduleMachine.Command, now = t0, fires = everyHour) =>
  Either.getOrThrow(ScheduleMachine.apply(state, fires, command, now))

describe("ScheduleMachine", () => {
  it("makes one run per tick, with an id that repeats itself, and says when it is next due", () => {
    const state = make()
    const once = ScheduleMachine.step(state, everyHour, t0 + hour)
    const again = ScheduleMachine.step(state, everyHour, t0 + hour + 7)

    assert.deepStrictEqual(words(once), ["enqueued tick 1"])
    assert.deepStrictEqual(again.decisions.starts, once.decisions.starts)
    assert.match(
      once.decisions.starts[0]!.runId,
      /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
    )
    assert.strictEqual(ScheduleMachine.nextTimer(once.state), t0 + 2 * hour)
    assert.deepStrictEqual(words(ScheduleMachine.step(once.state, everyHour, t0 + hour)), [])
  })

  it("treats late ticks as its misfire policy says, within the catch-up window", () => {
    const after = (policy: Partial<SchedulePolicy.SchedulePolicy>) =>
      words(ScheduleMachine.step(make({ overlap: "allowAll", ...policy }), everyHour, t0 + 5.5 * hour))

    assert.deepStrictEqual(after({ misfire: "skip" }), ["missed late 1-5 x5"])
    assert.deepStrictEqual(after({ misfire: "fireOnce" }), ["missed coalesced 1-4 x4", "enqueued tick 5"])
    assert.deepStrictEqual(after({ misfire: "fireAll", catchupWindowMs: 3 * hour }), [
      "missed too-late 1-2 x2",
      "enqueued tick 3",
      "enqueued tick 4",
      "enqueued tick 5"
    ])
    assert.deepStrictEqual(after({ misfire: "fireOnce", catchupWindowMs: minute }), [
      "missed too-late 1-5 x5"
    ])
    assert.deepStrictEqual(after({ misfire: "skip", graceMs: 2 * hour }), [
      "missed late 1-3 x3",
      "enqueued tick 4",
      "enqueued tick 5"
    ])
  })

  it("treats a tick beside a run that is going on as its overlap policy says", () => {
    const play = (overlap: SchedulePolicy.OverlapPolicy) => {
      let state = make({ overlap })
      const seen: Array<string> = []
      const take = (step: Step) => {
        state = step.state
        seen.push(...words(step), ...step.decisions.cancels.map(() => "cancel"))
      }
      for (const at of [1, 2, 3]) take(ScheduleMachine.step(state, everyHour, t0 + at * hour))
      const first = ScheduleMachine.step(make({ overlap }), everyHour, t0 + hour).decisions.starts[0]!
      seen.push("end")
      take(ScheduleMachine.finished(state, everyHour, { runId: first.runId, isFailure: false }, t0 + 3.5 * hour))
      take(ScheduleMachine.finished(state, everyHour, { runId: first.runId, isFailure: false }, t0 + 3.5 * hour))
      return { seen, waiting: state.buffer.length }
    }

    assert.deepStrictEqual(play("skip"), {
      seen: ["enqueued tick 1", "skipped overlap 2", "skipped overlap 3", "end"],
      waiting: 0
    })
    assert.deepStrictEqual(play("bufferOne"), {
      seen: ["enqueued tick 1", "skipped overlap 3", "end", "enqueued buffered 2"],
      waiting: 0
    })
    assert.deepStrictEqual(play("bufferAll"), { seen: ["enqueued tick 1", "end", "enqueued buffered 2"], waiting: 1 })
    assert.deepStrictEqual(play("cancelOther"), {
      seen: ["enqueued tick 1", "cancel", "skipped overlap 2", "cancel", "end", "enqueued buffered 3"],
      waiting: 0
    })
    assert.deepStrictEqual(play("allowAll"), {
      seen: ["enqueued tick 1", "enqueued tick 2", "enqueued tick 3", "end"],
      waiting: 0
    })
  })

  it("records what passes during a pause, whenever it is resumed", () => {
    const paused = applied(make(), { _tag: "pause", by: "ann", why: "deploy" }).state
    const idle = ScheduleMachine.step(paused, everyHour, t0 + 3 * hour)
    const resumed = applied(idle.state, { _tag: "resume" }, t0 + 3.5 * hour).state
    const next = ScheduleMachine.step(resumed, everyHour, t0 + 4 * hour)

    assert.deepStrictEqual(words(idle), [])
    assert.strictEqual(ScheduleMachine.nextTimer(paused), undefined)
    assert.deepStrictEqual(words(next), ["skipped paused 1-3 x3", "enqueued tick 4"])
    assert.deepStrictEqual(words(ScheduleMachine.settlePause(paused, everyHour, t0 + 2.5 * hour)), [
      "skipped paused 1-2 x2"
    ])
  })

  it("pauses when a run fails, where it is asked to", () => {
    const started = ScheduleMachine.step(make({ pauseOnFailure: true }), everyHour, t0 + hour)
    const { runId } = started.decisions.starts[0]!
    const failed = ScheduleMachine.finished(started.state, everyHour, { runId, isFailure: true }, t0 + 1.1 * hour).state
    const other = ScheduleMachine.finished(started.state, everyHour, { runId, isFailure: false }, t0 + 1.1 * hour).state

    assert.strictEqual(failed.paused?.by, "pauseOnFailure")
    assert.include(failed.paused?.why, runId)
    assert.isNull(other.paused)
  })

  it("leaves out the next ticks, or single ones, once", () => {
    const twice = applied(make(), { _tag: "skipNext", count: 2 }).state
    const single = applied(make(), { _tag: "skipAt", nominal: t0 + 2 * hour }).state
    const later = (state: ScheduleState) => {
      const seen: Array<string> = []
      for (let current = state, at = 1; at <= 4; at++) {
        const step = ScheduleMachine.step({ ...current, open: [] }, everyHour, t0 + at * hour)
        current = step.state
        seen.push(...words(step))
      }
      return seen
    }

    assert.deepStrictEqual(later(twice), ["skipped asked 1", "skipped asked 2", "enqueued tick 3", "enqueued tick 4"])
    assert.deepStrictEqual(later(single), ["enqueued tick 1", "skipped asked 2", "enqueued tick 3", "enqueued tick 4"])
    const refused = ScheduleMachine.apply(make(), everyHour, { _tag: "skipAt", nominal: t0 + 1 }, t0)
    assert.strictEqual(Either.isLeft(refused) && refused.left._tag, "InvalidRequest")
  })

  it("refuses an operation on a revision that is gone, and does nothing", () => {
    const state = applied(make(), { _tag: "skipNext", count: 1 }).state
    const stale = ScheduleMachine.apply(state, everyHour, { _tag: "resume" }, t0, 1)

    assert.strictEqual(state.revision, 2)
    assert.strictEqual(Either.isLeft(stale) && stale.left._tag, "RevisionConflict")
    assert.isTrue(Either.isRight(ScheduleMachine.apply(state, everyHour, { _tag: "resume" }, t0, 2)))
  })

  it("gives the same request the same run", () => {
    const trigger = () => applied(make(), { _tag: "trigger", requestId: "a", at: t0 }).decisions.starts
    const other = applied(make(), { _tag: "trigger", requestId: "b", at: t0 }).decisions.starts

    assert.deepStrictEqual(trigger(), trigger())
    assert.notStrictEqual(other[0]!.runId, trigger()[0]!.runId)
  })

  it("fills a range at its rate, in its order, with the ids of the ticks, beside what is due", () => {
    for (const order of ["oldest", "newest"] as const) {
      const command = { _tag: "backfill", from: t0 - 10 * hour, until: t0 - hour, order, perMinute: 60 } as const
      let state = applied(make(), command).state
      const made: Array<number> = []
      for (let now = t0; state.backfill !== null && now < t0 + hour; now += 1_000) {
        const step = ScheduleMachine.step(state, everyHour, now)
        state = step.state
        assert.isAtMost(step.decisions.starts.length, 1)
        made.push(...step.decisions.starts.map(({ nominal }) => (nominal - t0) / hour))
      }
      const expected = [-10, -9, -8, -7, -6, -5, -4, -3, -2, -1]
      assert.deepStrictEqual(made, order === "oldest" ? expected : expected.reverse())
      assert.isNull(state.backfill)
    }
    const tooMany = { _tag: "backfill", from: 0, until: t0, order: "oldest", perMinute: 60 } as const
    const refused = ScheduleMachine.apply(make(), everyHour, tooMany, t0)
    assert.strictEqual(Either.isLeft(refused) && refused.left._tag, "InvalidRequest")
  })

  it("ends after its most fires, and waits for a run where a delay is asked for", () => {
    let state: ScheduleState = { ...make({ overlap: "allowAll" }), maxFires: 2 }
    state = ScheduleMachine.step(state, everyHour, t0 + 3 * hour).state
    assert.deepStrictEqual([state.fires, state.nextAt], [1, t0 + 4 * hour])
    state = ScheduleMachine.step(state, everyHour, t0 + 4 * hour).state
    const last = ScheduleMachine.step(state, everyHour, t0 + 9 * hour)
    assert.deepStrictEqual([last.state.fires, last.state.nextAt, last.decisions.records.length], [2, null, 0])

    const delay = compile({ sources: [{ _tag: "delay", delayMs: minute }] })
    const started = ScheduleMachine.step(make({}, delay), delay, t0 + minute)
    assert.isUndefined(ScheduleMachine.nextTimer(started.state))
    const { runId } = started.decisions.starts[0]!
    const ended = ScheduleMachine.finished(started.state, delay, { runId, isFailure: true }, t0 + hour)
    assert.strictEqual(ScheduleMachine.nextTimer(ended.state), t0 + hour + minute)
  })

  it("puts schedules of one expression apart, each by the same every time", () => {
    const of = (id: string) =>
      ScheduleMachine.make({ id, policy: policyOf(), jitterMs: minute, maxFires: null }, everyHour, t0)
    const timers = Array.from(
      { length: 20 },
      (_, index) => ScheduleMachine.nextTimer(of(`default/${index}`))! - t0 - hour
    )

    assert.isAbove(new Set(timers).size, 15)
    assert.isTrue(timers.every((late) => late >= 0 && late < minute))
    assert.deepStrictEqual(ScheduleMachine.nextTimer(of("a")), ScheduleMachine.nextTimer(of("a")))
    const due = ScheduleMachine.step(of("a"), everyHour, ScheduleMachine.nextTimer(of("a"))!)
    assert.strictEqual(due.decisions.starts[0]!.nominal, t0 + hour)
  })

  it("accounts for every tick exactly once, whatever the policy, outages, pauses and ends of runs", () => {
    const choice = fc.record({
      misfire: fc.constantFrom(...SchedulePolicy.Misfire.literals),
      overlap: fc.constantFrom(...SchedulePolicy.OverlapPolicy.literals),
      pauseOnFailure: fc.boolean(),
      catchupWindowMs: fc.integer({ min: 0, max: 200 }).map((each) => each * minute),
      graceMs: fc.integer({ min: 0, max: 3 }).map((each) => each * minute)
    })
    const move = fc.record({ waitMs: fc.integer({ min: 1, max: 40 * minute }), what: fc.integer({ min: 0, max: 9 }) })
    fc.assert(
      fc.property(choice, fc.array(move, { maxLength: 40 }), (policy, moves) => {
        let state = make(policy, everyMinute)
        let now = t0
        let accounted = 0
        const runs = new Set<string>()
        const take = (step: Step) => {
          for (const { count } of step.decisions.records) accounted += count
          for (const { runId } of step.decisions.starts) {
            assert.isFalse(runs.has(runId), "a run made twice")
            runs.add(runId)
          }
          state = step.state
        }
        for (const { waitMs, what } of moves) {
          now += waitMs
          if (what === 0) state = applied(state, { _tag: "pause", by: "", why: "" }, now, everyMinute).state
          else if (what <= 2) take(applied(state, { _tag: "resume" }, now, everyMinute))
          else if (what === 3) state = applied(state, { _tag: "skipNext", count: 3 }, now, everyMinute).state
          else if (what <= 6 && state.open.length > 0) {
            take(ScheduleMachine.finished(state, everyMinute, { runId: state.open[0]!, isFailure: what === 4 }, now))
          }
          for (let steps = 0; steps < 5 && state.paused === null; steps++) {
            take(ScheduleMachine.step(state, everyMinute, now))
            if (policy.overlap !== "allowAll" && !policy.pauseOnFailure) assert.isAtMost(state.open.length, 1)
          }
        }
        const passed = Math.floor((state.nextAt! - minute - t0) / minute)
        assert.strictEqual(accounted + state.buffer.length, passed)
        if (state.paused === null) assert.isAbove(state.nextAt!, now)
      }),
      { numRuns: 300 }
    )
  })
})

describe("simulateSchedule", () => {
  const during = { from: t0, until: t0 + 8 * hour }
  const outage = { from: t0 + 1.5 * hour, until: t0 + 5.5 * hour }
  const tell = (policy: Partial<SchedulePolicy.SchedulePolicy>, runMs = 0) =>
    simulateSchedule(everyHour, policyOf(policy), { during, outage, runMs }).map((line) =>
      `${(line.nominal - t0) / hour}${line.count > 1 ? ` x${line.count}` : ""} ${line.outcome}${
        line.startedAt === null ? "" : ` at ${(line.startedAt - t0) / hour}`
      }`
    )

  it("shows an outage under each misfire policy", () => {
    assert.deepStrictEqual(tell({ misfire: "skip" }), [
      "0 ran at 0",
      "1 ran at 1",
      "2 x4 missed",
      "6 ran at 6",
      "7 ran at 7"
    ])
    assert.deepStrictEqual(tell({ misfire: "fireOnce" }), [
      ...["0 ran at 0", "1 ran at 1", "2 x3 missed", "5 ran at 5.5", "6 ran at 6", "7 ran at 7"]
    ])
    assert.deepStrictEqual(tell({ misfire: "fireAll", overlap: "allowAll" }), [
      ...["0 ran at 0", "1 ran at 1", "2 ran at 5.5", "3 ran at 5.5", "4 ran at 5.5", "5 ran at 5.5"],
      ...["6 ran at 6", "7 ran at 7"]
    ])
  })

  it("shows runs longer than the interval under overlap policies", () => {
    assert.deepStrictEqual(tell({ misfire: "fireAll", overlap: "bufferAll" }, 0.25 * hour), [
      ...["0 ran at 0", "1 ran at 1", "2 ran at 5.5", "3 ran at 5.75", "4 ran at 6", "5 ran at 6.25"],
      ...["6 ran at 6.5", "7 ran at 7"]
    ])
    assert.deepStrictEqual(tell({ overlap: "cancelOther" }, 3 * hour).slice(-3), [
      "5 cancelled at 5.5",
      "6 cancelled at 6",
      "7 ran at 7"
    ])
  })
})
