/**
 * Two clocks. Runs, schedules and handlers live by the `TestClock`: it moves only when a test says so. What a worker and its
 * node do to know of each other (heartbeats, leases, credit) lives by the real one: nobody is lost because a test has moved on
 * by a day.
 */
import type { ActorHost, Alarm } from "@orrery/cluster/ActorHost"
import { DatabaseClock } from "@orrery/cluster/DatabaseClock"
import { Chunk, Clock, Duration, Effect, Runtime, Scheduler, type TestClock } from "effect"

const isTestClock = (clock: Clock.Clock): clock is TestClock.TestClock => "adjust" in clock && "sleeps" in clock

/** The clock of the test. Dies where there is none. */
export const testClock: Effect.Effect<TestClock.TestClock> = Effect.flatMap(
  Effect.clock,
  (clock) =>
    isTestClock(clock)
      ? Effect.succeed(clock)
      : Effect.dieMessage("OrreryTest needs the TestClock: build it in `it.effect` or `it.scoped`, not in `it.live`")
)

const realClock = Clock.make()

/** By the real clock, whatever that of the test says. */
export const real = Effect.withClock(realClock)

/**
 * A call from anywhere to the node: what it starts there lives on when the worker dies that it came from. That worker notices
 * by the yield: it does nothing with the answer.
 */
export const onNode = <A, E, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  call.pipe(real, Effect.withScheduler(Scheduler.defaultScheduler), Effect.zipLeft(Effect.yieldNow()))

/** What is due by the database clock of the actors is due by the test's, to the millisecond. */
export const makeTime = (clock: TestClock.TestClock) =>
  Effect.map(Effect.runtime<never>(), (runtime) => {
    const alarms = new Set<{ at: number; readonly ring: () => void }>()
    /** Instants somebody is woken at. A sleep is not taken back: the clock of a test keeps what was given up. */
    const woken = new Set<number>()
    const wakeAt = (at: number): void => {
      if (at === Infinity || woken.has(at)) return
      woken.add(at)
      const rung = Effect.sync(() => {
        woken.delete(at)
        for (const alarm of alarms) {
          if (alarm.at > clock.unsafeCurrentTimeMillis()) continue
          alarm.at = Infinity
          alarm.ring()
        }
      })
      const wait = Duration.millis(Math.max(0, at - clock.unsafeCurrentTimeMillis()))
      Runtime.runFork(runtime, Effect.zipRight(Effect.zipRight(Effect.yieldNow(), clock.sleep(wait)), rung))
    }
    const makeAlarm = (ring: () => void): Alarm => {
      const alarm = { at: Infinity, ring }
      alarms.add(alarm)
      return {
        set: (at) => {
          alarm.at = at
          wakeAt(at)
        },
        stop: () => {
          alarm.at = Infinity
        }
      }
    }
    const time: { readonly clock: DatabaseClock; readonly makeAlarm: ActorHost["makeAlarm"] } = {
      clock: new DatabaseClock(() => clock.unsafeCurrentTimeMillis(), 0),
      makeAlarm
    }
    return time
  })

/** The next instant something sleeps until, at most `until`. */
export const nextWake = (clock: TestClock.TestClock, until: number): Effect.Effect<number> =>
  Effect.map(clock.sleeps, (sleeps) => {
    const now = clock.unsafeCurrentTimeMillis()
    return Chunk.reduce(sleeps, until, (first, at) => at > now && at < first ? at : first)
  })
