import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import type { LimiterTerms } from "../src/LimiterTerms.js"
import * as LimitDesk from "../src/LimitDesk.js"
import { LimitBook } from "../src/LimitBook.js"
import { type LimitStore, LimitsUnavailable, type RateRequest } from "../src/LimitStore.js"
import * as MemoryLimitStore from "../src/MemoryLimitStore.js"
import type { Lent } from "../src/StartLimits.js"
import { mostInWindow } from "@orrery/testing/limitSamples"

type Store = LimitStore["Type"]

const rate = (limit: number, perMs: number, more: Partial<LimiterTerms> = {}) =>
  (
    { kind: "rate", name: "partner", limit, perMs, ...more }
  ) as LimiterTerms
const permit = (limit: number, more: Partial<LimiterTerms> = {}) =>
  (
    { kind: "permit", name: "gpu", limit, leaseMs: 9_000, ...more }
  ) as LimiterTerms

const gone = new LimitsUnavailable({ operation: "test", reason: "it is away" })

/** A store in memory whose answers take a millisecond, and who asked it. */
const makeStore = Effect.gen(function*() {
  const memory = yield* MemoryLimitStore.make
  const asked: Array<RateRequest> = []
  const calls = { count: 0 }
  const state = { isGone: false, isForgetful: false }
  const call = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | LimitsUnavailable> =>
    Effect.suspend((): Effect.Effect<A, E | LimitsUnavailable> => {
      calls.count += 1
      return state.isGone ? Effect.fail(gone) : Effect.delay(effect, "1 millis")
    })
  const store: Store = {
    grant: (rule, request) => {
      asked.push(request)
      return call(memory.grant(rule, request))
    },
    // Decided in the order in which it is asked.
    acquire: (rule, holder) =>
      state.isGone
        ? call(Effect.never)
        : Effect.flatMap(memory.acquire(rule, holder), (answer) => call(Effect.succeed(answer))),
    renew: (rule, holder) => call(state.isForgetful ? Effect.succeed(false) : memory.renew(rule, holder)),
    release: (rule, holder) => call(memory.release(rule, holder))
  }
  return { store, memory, asked, calls, state }
})

const deskOn = (store: Store) => LimitDesk.make({ store, leaseMsMin: 0 })

/** A gate that starts as many as it may, as soon as it may. */
const greedy = (lent: () => Lent, times: Array<number>, at: () => number, costsNothing = 1_000_000) => {
  const turn = () => {
    for (let n = 0; n < costsNothing && lent().room() > 0; n++) {
      lent().take()
      times.push(at())
    }
    lent().want()
  }
  return turn
}

describe("a rate that is lent", () => {
  it.scoped("is never exceeded by several desks in any window, nor is much of it wasted", () =>
    Effect.gen(function*() {
      const { store } = yield* makeStore
      const clock = yield* Effect.clock
      const at = () => Number(clock.unsafeCurrentTimeNanos()) / 1e6
      const times: Array<number> = []
      for (const n of [1, 2]) {
        const desk = yield* deskOn(store)
        for (const queue of ["a", "b"]) {
          const lent: Lent = desk.lend(rate(100, 300), {
            partition: `${n}${queue}`,
            cost: 1,
            filled: () => turn()
          })
          const turn = greedy(() => lent, times, at)
          turn()
        }
      }
      yield* TestClock.adjust("1500 millis")

      assert.isAtMost(mostInWindow(times, 300), 100)
      assert.isAtLeast(times.length, 5 * 95)
    }))

  it.scoped("asks once for many starts where the limit is high", () =>
    Effect.gen(function*() {
      const { calls, store } = yield* makeStore
      const desk = yield* deskOn(store)
      let starts = 0
      let stalls = 0
      const lent: Lent = desk.lend(rate(1_000_000, 1_000), { partition: "p", cost: 1, filled: () => undefined })
      lent.want()
      yield* TestClock.adjust("2 millis")
      // 20 a millisecond, as fast as slots come free.
      for (let ms = 0; ms < 300; ms++) {
        for (let n = 0; n < 20; n++) {
          if (lent.room() > 0) {
            lent.take()
            starts += 1
          } else {
            lent.want()
            stalls += 1
          }
        }
        yield* TestClock.adjust("1 millis")
      }

      assert.isAbove(starts / calls.count, 100)
      assert.isBelow(stalls, 100)
    }))

  it.scoped("asks for no more than the one that waits, where starts are few", () =>
    Effect.gen(function*() {
      const { asked, store } = yield* makeStore
      const desk = yield* deskOn(store)
      const lent = desk.lend(rate(100, 1_000), { partition: "p", cost: 1, filled: () => undefined })
      for (let n = 0; n < 20; n++) {
        lent.want()
        yield* TestClock.adjust("2 millis")
        assert.isAbove(lent.room(), 0)
        lent.take()
        yield* TestClock.adjust("300 millis")
      }

      assert.strictEqual(asked.length, 20)
      assert.isTrue(asked.every(({ want }) => want === 1))
    }))

  it.scoped("dies with its validity, for a start that is decided as well", () =>
    Effect.gen(function*() {
      const { store } = yield* makeStore
      const desk = yield* deskOn(store)
      const lent = desk.lend(rate(100, 1_000), { partition: "p", cost: 1, filled: () => undefined })
      lent.want()
      yield* TestClock.adjust("2 millis")
      const ticket = lent.take()
      assert.isFalse(lent.isLate(ticket))
      lent.want()
      yield* TestClock.adjust("2 millis")
      assert.isAbove(lent.room(), 0)
      yield* TestClock.adjust("15 millis")

      assert.strictEqual(lent.room(), 0)
      assert.isTrue(lent.isLate(ticket))
    }))

  it.scoped("is closed while the store is gone, or each process's own, as declared", () =>
    Effect.gen(function*() {
      const { state, store } = yield* makeStore
      state.isGone = true
      const desk = yield* deskOn(store)
      const filled: Array<string> = []
      const lend = (name: string, more: Partial<LimiterTerms>) =>
        desk.lend(rate(10, 1_000, { name, ...more }), { partition: "p", cost: 1, filled: () => filled.push(name) })
      const closed = lend("closed", {})
      const open = lend("open", { whenGone: "open" })
      closed.want()
      open.want()
      yield* TestClock.adjust("3 seconds")

      assert.deepStrictEqual(filled, ["open"])
      assert.deepStrictEqual([closed.room(), closed.obstacle()], [0, "unavailable"])
      state.isGone = false
      yield* TestClock.adjust("250 millis")
      assert.deepStrictEqual([filled.includes("closed"), closed.obstacle()], [true, "limit"])
    }))
})

describe("permits that are lent", () => {
  const lendOn = (store: Store, terms: LimiterTerms, partition = "p", filled: () => void = () => undefined) =>
    Effect.map(deskOn(store), (desk) => desk.lend(terms, { partition, cost: 1, filled }))

  it.scoped("are kept for the next attempt, and given back when there is none", () =>
    Effect.gen(function*() {
      const { calls, memory, store } = yield* makeStore
      yield* TestClock.adjust("1 minutes")
      const lent = yield* lendOn(store, permit(1))
      lent.want()
      yield* TestClock.adjust("5 millis")
      for (let n = 0; n < 50; n++) {
        assert.strictEqual(lent.room(), 1)
        lent.take()
        yield* TestClock.adjust("10 millis")
        lent.ended()
      }
      assert.strictEqual(calls.count, 1)
      yield* TestClock.adjust("300 millis")

      assert.strictEqual(lent.room(), 0)
      assert.isTrue(
        (yield* memory.acquire({ name: "gpu", limit: 1, leaseMs: 9_000, exactness: "strict" }, "other")).isHeld
      )
    }))

  it.scoped("come many at a time to a partition that uses all it gets, and never more than there are", () =>
    Effect.gen(function*() {
      const { calls, memory, store } = yield* makeStore
      yield* TestClock.adjust("1 minutes")
      const desk = yield* deskOn(store)
      const running = { a: 0, b: 0 }
      for (const name of ["a", "b"] as const) {
        const lent: Lent = desk.lend(permit(300), { partition: name, cost: 1, filled: () => turn() })
        const turn = () => {
          for (; lent.room() > 0; running[name]++) lent.take()
          lent.want()
        }
        turn()
      }
      // An answer takes one.
      for (let n = 0; n < 40; n++) yield* TestClock.adjust("1 millis")

      assert.strictEqual(running.a + running.b, 300)
      assert.isAbove(Math.min(running.a, running.b), 100)
      const asked = calls.count
      for (let n = 0; n < 200; n++) yield* TestClock.adjust("5 millis")
      assert.isAtMost(calls.count - asked, 2 * 1_000 / 200 + 2, "none is there: one is asked for now and then")
      // The lowest numbers, which an heir asks for.
      for (const name of ["a", "b"] as const) {
        const held = yield* Effect.forEach(
          Array.from({ length: running[name] }, (_, n) => `${name} 300/9000 ${n}`),
          (holder) => memory.renew({ name: "gpu", limit: 300, leaseMs: 9_000, exactness: "strict" }, holder)
        )
        assert.isTrue(held.every((each) => each))
      }
    }))

  it.scoped("are renewed for as long as attempts run", () =>
    Effect.gen(function*() {
      const { memory, store } = yield* makeStore
      const lent = yield* lendOn(store, permit(1))
      lent.want()
      yield* TestClock.adjust("5 millis")
      lent.take()
      for (let n = 0; n < 60; n++) yield* TestClock.adjust("1 seconds")

      assert.strictEqual(lent.lost(), 0)
      assert.isFalse(
        (yield* memory.acquire({ name: "gpu", limit: 1, leaseMs: 9_000, exactness: "strict" }, "other")).isHeld
      )
    }))

  it.scoped("go from an owner that died to its heir without a moment in which another could have them", () =>
    Effect.gen(function*() {
      const { store } = yield* makeStore
      const before = yield* lendOn(store, permit(2), "a")
      before.want()
      yield* TestClock.adjust("5 millis")
      before.take()
      let filled = 0
      const other = yield* lendOn(store, permit(2), "b", () => void filled++)
      other.want()
      yield* TestClock.adjust("5 millis")
      other.take()
      before.abandon()
      yield* TestClock.adjust("3 seconds")
      const heir = yield* lendOn(store, permit(2), "a")
      heir.adopt()
      other.want()
      for (let n = 0; n < 40; n++) yield* TestClock.adjust("500 millis")

      assert.strictEqual(heir.lost(), 0)
      assert.isAtMost(other.room(), 0)
      assert.strictEqual(filled, 1)
      heir.ended()
      for (let n = 0; n < 10; n++) yield* TestClock.adjust("50 millis")
      assert.strictEqual(filled, 2)
    }))

  it.scoped("are lost before another may hold them, unless told to go on", () =>
    Effect.gen(function*() {
      const { state, store } = yield* makeStore
      let told = 0
      const closed = yield* lendOn(store, permit(5), "p", () => void told++)
      const open = yield* lendOn(store, permit(5, { name: "open", whenGone: "open" }))
      for (const lent of [closed, open]) lent.want()
      yield* TestClock.adjust("5 millis")
      for (const lent of [closed, open]) lent.take()
      state.isGone = true
      const before = told
      yield* TestClock.adjust("8 seconds")
      const inTime = closed.lost()
      yield* TestClock.adjust("900 millis")

      assert.deepStrictEqual([inTime, closed.lost(), open.lost()], [0, 1, 0])
      assert.isAbove(told, before)
    }))

  it.scoped("are asked for anew when the store has forgotten them, and only what is another's is lost", () =>
    Effect.gen(function*() {
      const { memory, state, store } = yield* makeStore
      const lent = yield* lendOn(store, permit(1))
      lent.want()
      yield* TestClock.adjust("5 millis")
      lent.take()
      state.isForgetful = true
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(lent.lost(), 0)
      yield* memory.release({ name: "gpu", limit: 1, leaseMs: 9_000, exactness: "strict" }, "p 1/9000 0")
      yield* memory.acquire({ name: "gpu", limit: 1, leaseMs: 60_000, exactness: "strict" }, "other")
      yield* TestClock.adjust("4 seconds")

      assert.strictEqual(lent.lost(), 1)
    }))

  it.scoped("change hands between partitions that could each use all of them", () =>
    Effect.gen(function*() {
      const { store } = yield* makeStore
      const desk = yield* deskOn(store)
      const running = { a: 0, b: 0 }
      const most = { both: 0 }
      const turns = { a: 0, b: 0 }
      const clock = yield* Effect.clock
      const endings: Array<{ readonly at: number; readonly end: () => void }> = []
      const at = () => Number(clock.unsafeCurrentTimeNanos()) / 1e6
      for (const name of ["a", "b"] as const) {
        const lent: Lent = desk.lend(permit(2), { partition: name, cost: 1, filled: () => turn() })
        const turn = () => {
          while (lent.room() > 0) {
            lent.take()
            running[name] += 1
            turns[name] += 1
            most.both = Math.max(most.both, running.a + running.b)
            endings.push({
              at: at() + 50,
              end: () => {
                running[name] -= 1
                lent.ended()
                turn()
              }
            })
          }
          lent.want()
        }
        turn()
      }
      for (let n = 0; n < 600; n++) {
        yield* TestClock.adjust("25 millis")
        for (const due of endings.splice(0)) {
          if (due.at <= at()) due.end()
          else endings.push(due)
        }
      }

      assert.strictEqual(most.both, 2)
      assert.isAbove(turns.a, 100)
      assert.isAbove(turns.b, 100)
    }))
})

describe("a book that has taken over", () => {
  const strict = { name: "r", limit: 10, perMs: 1_000, exactness: "strict", burst: 10 } as const
  const gpu = { name: "g", limit: 1, leaseMs: 1_000, exactness: "strict" } as const
  const want = { min: 1, want: 1, validMs: 20 }

  it("grants nothing until all that may have been granted before is over", () => {
    const book = new LimitBook(5_000)

    const refused = book.grant(strict, want, 5_000)!
    assert.strictEqual(refused.granted, 0)
    assert.isAtLeast(refused.waitMs, 1_250)
    assert.strictEqual(book.grant(strict, want, 6_240)!.granted, 0)
    assert.strictEqual(book.grant(strict, want, 6_261)!.granted, 1)
    assert.strictEqual(book.grant({ ...strict, exactness: "relaxed" }, want, 5_000)!.granted, 1)
  })

  it("takes holders back that renew, and gives no permit to others for one lease", () => {
    const book = new LimitBook(5_000)

    assert.deepStrictEqual(book.acquire(gpu, "new", 5_100), { isHeld: false, waitMs: 900 })
    assert.isTrue(book.renew(gpu, "old", 5_500))
    assert.isFalse(book.acquire(gpu, "new", 6_100)!.isHeld)
    assert.isTrue(book.acquire(gpu, "new", 6_600)!.isHeld)
    assert.isFalse(book.renew(gpu, "old", 6_700))
  })

  it("counts what rules of one name ask for together", () => {
    const book = new LimitBook()

    assert.strictEqual(book.grant(strict, { min: 1, want: 10, validMs: 0 }, 1)!.granted, 10)
    assert.strictEqual(book.grant({ ...strict, limit: 12 }, { min: 1, want: 10, validMs: 0 }, 2)!.granted, 2)
  })
})
