/** Each checker alone, on histories made by hand: what it must notice, and what it must not take for a breach. */
import { assert, describe, it } from "@effect/vitest"
import { checkAll, checkerNames, checkers } from "../src/history/checkers.js"
import type { HistoryEvent } from "../src/history/HistoryEvent.js"

type Part<Event> = Event extends HistoryEvent ? Omit<Event, "at" | "by"> : never

const history = (...events: ReadonlyArray<Part<HistoryEvent>>): ReadonlyArray<HistoryEvent> =>
  events.map((event, at) => ({ at, by: "somebody", ...event }))

const asked = { _tag: "asked", run: "r", queue: "q", dueAt: 0 } as const
const acknowledged = { _tag: "acknowledged", run: "r" } as const
const final = { _tag: "final", run: "r", state: "succeeded", rows: 1 } as const
const stored = {
  _tag: "committed",
  partition: 1,
  epoch: 1,
  run: "r",
  from: undefined,
  to: "ready",
  attempt: 0,
  lease: 0
} as const
const running = { ...stored, from: "ready", to: "running", attempt: 1, lease: 10 } as const
const succeeded = { ...running, from: "running", to: "succeeded" } as const
const started = {
  _tag: "started",
  run: "r",
  attempt: 1,
  lease: 10,
  databaseTime: 1_000,
  running: 1,
  slots: 1
} as const

const found = (...events: ReadonlyArray<Part<HistoryEvent>>) =>
  checkAll(history(...events)).map(({ checker }) => checker)

const good = [asked, stored, acknowledged, running, started, succeeded, final] as const

describe("checkers", () => {
  it("have nothing to say of a run that went well, or of a commit that was sent twice", () => {
    assert.deepStrictEqual(found(...good), [])
    const retrying = { ...running, from: "running", to: "retrying", scheduledAt: 500 } as const
    assert.deepStrictEqual(found(stored, running, retrying, { ...retrying, from: "retrying" }), [])
  })

  it("have each a name and a promise", () => {
    assert.deepStrictEqual(checkers.map(({ name }) => name), [...checkerNames])
    assert.isTrue(checkers.every(({ promise }) => promise.length > 0))
  })

  it("notice an acknowledged run that is not there, and one that has not ended", () => {
    assert.deepStrictEqual(found(asked, acknowledged), ["lost"])
    assert.deepStrictEqual(found(asked, acknowledged, { ...final, rows: 0 }), ["lost"])
    assert.deepStrictEqual(found(asked, acknowledged, { ...final, state: "ready" }), ["liveness"])
  })

  it("notice two outcomes of one attempt, two ends, two rows, and an outcome of an attempt that was replaced", () => {
    const retrying = { ...running, from: "running", to: "retrying" } as const
    assert.include(found(stored, running, retrying, { ...retrying, from: "retrying", to: "failed" }), "doubleAccepted")
    assert.include(found(stored, running, succeeded, { ...succeeded, from: "ready" }), "doubleAccepted")
    assert.include(found(...good.slice(0, -1), { ...final, rows: 2 }), "doubleAccepted")
    const replaced = { ...started, attempt: 2, lease: 20 } as const
    const accepted = { _tag: "accepted", run: "r", attempt: 1, lease: 10, askedAt: 5 } as const
    assert.deepStrictEqual(found(stored, running, started, replaced, accepted), ["doubleAccepted"])
    assert.deepStrictEqual(found(stored, running, started, replaced, { ...accepted, askedAt: 2 }), [])
  })

  it("notice an epoch and a lease that go backwards", () => {
    assert.deepStrictEqual(found({ ...stored, epoch: 2 }, { ...running, epoch: 1 }), ["epochBackwards"])
    assert.include(found(stored, running, { ...succeeded, lease: 9 }), "epochBackwards")
  })

  it("notice moves that are not in the table, but not that states were left out", () => {
    assert.deepStrictEqual(found(stored, { ...succeeded, from: "ready" }), [])
    assert.deepStrictEqual(found({ ...stored, to: "running" }), ["illegalMove"])
    assert.include(found(stored, running, succeeded, { ...stored, from: "succeeded" }), "illegalMove")
    assert.include(found(stored, { ...running, from: "scheduled" }), "illegalMove")
  })

  it("notice a start before its time, but not one of an attempt that was replaced, or within the tolerance", () => {
    const early = [{ ...asked, dueAt: 1_020 }, stored, started] as const
    assert.deepStrictEqual(found(...early), ["early"])
    assert.deepStrictEqual(checkAll(history(...early), { toleranceMs: 20 }), [])
    const retrying = { ...running, from: "running", to: "retrying", scheduledAt: 2_000 } as const
    assert.deepStrictEqual(found(stored, running, retrying, { ...started, attempt: 2, lease: 11 }), ["early"])
    assert.deepStrictEqual(found(stored, running, retrying, started), [])
  })

  it("notice more handlers than slots, and what is beyond its bound", () => {
    assert.deepStrictEqual(found({ ...started, running: 2 }), ["overLimit"])
    assert.deepStrictEqual(found({ _tag: "measured", what: "rssBytes", value: 2, limit: 1 }), ["resources"])
  })

  it("notice runs of one key that do not wait for each other, but not those asked for at the same time", () => {
    const of = (run: string, at: ReadonlyArray<Part<HistoryEvent>>) => at.map((event) => ({ ...event, run }))
    const keyed = { ...asked, orderingKey: "k" } as const
    assert.deepStrictEqual(
      found(...of("a", [keyed, stored, acknowledged]), ...of("b", [keyed, stored, started]), ...of("a", [final])),
      ["order"]
    )
    assert.deepStrictEqual(
      found(
        ...of("a", [keyed, stored, acknowledged, running, succeeded, final]),
        ...of("b", [keyed, stored, started])
      ),
      []
    )
    assert.deepStrictEqual(
      found(...of("a", [keyed]), ...of("b", [keyed, stored, started]), ...of("a", [stored])),
      []
    )
  })

  it("notice a reader that does not see what was acknowledged before it asked", () => {
    const read = { _tag: "read", run: "r", found: false } as const
    assert.deepStrictEqual(found(asked, acknowledged, { ...read, askedAt: 1.5 }, final), ["readYourWrite"])
    assert.deepStrictEqual(found(asked, acknowledged, { ...read, askedAt: 0.5 }, final), [])
  })

  it("notice a tick that is forgotten, doubled or without its run, and a run without a tick", () => {
    const targets = { _tag: "targets", schedule: "s", nominals: [1, 2, 3], runs: ["r"] } as const
    const ticked = {
      _tag: "ticked",
      schedule: "s",
      first: 1,
      last: 1,
      count: 1,
      outcome: "enqueued",
      run: "r"
    } as const
    const missed = { ...ticked, first: 2, last: 3, count: 2, outcome: "missed", run: null } as const
    assert.deepStrictEqual(found(final, targets, ticked, missed), [])
    assert.deepStrictEqual(found(final, targets, ticked, { ...missed, last: 2, count: 1 }), ["ticks"])
    assert.include(found(final, targets, ticked, missed, { ...missed, first: 3, count: 1 }), "ticks")
    assert.include(found(final, targets, ticked, ticked, missed), "ticks")
    assert.deepStrictEqual(found({ ...final, rows: 0 }, { ...targets, runs: [] }, ticked, missed), ["ticks"])
    assert.deepStrictEqual(found(final, { ...targets, runs: ["r", "other"] }, ticked, missed), ["ticks"])
  })

  it("notice a checkpoint that is forgotten, or kept of an attempt that was replaced, but not one under way", () => {
    const later = { ...started, attempt: 2, lease: 20 } as const
    const saving = { _tag: "saving", run: "r", attempt: 1, lease: 10, value: "1" } as const
    const saved = { ...saving, _tag: "saved" } as const
    const loaded = { _tag: "loaded", run: "r", attempt: 2, lease: 20, value: "1", askedAt: 4.5 } as const
    const accepted = { _tag: "accepted", run: "r", attempt: 2, lease: 20, askedAt: 9 } as const
    assert.deepStrictEqual(found(started, saving, saved, later, loaded, accepted), [])
    assert.deepStrictEqual(found(started, saving, saved, later, { ...loaded, value: null }, accepted), ["checkpoints"])
    // Of one whose outcome does not count, or while nobody was told that it is durable, none may be found.
    assert.deepStrictEqual(found(started, saving, saved, later, { ...loaded, value: null }), [])
    assert.deepStrictEqual(found(started, saving, later, { ...loaded, value: null }, accepted), [])
    assert.deepStrictEqual(found(started, saving, later, loaded, accepted), [])
    const older = { ...saving, value: "0" } as const
    const both = [started, older, { ...older, _tag: "saved" }, saving, saved, later] as const
    assert.deepStrictEqual(found(...both, { ...loaded, value: "0", askedAt: 5.5 }, accepted), ["checkpoints"])
    assert.include(found(started, later, saving, saved), "checkpoints")
    assert.include(found(started, later, saving, loaded, accepted), "checkpoints")
  })
})
