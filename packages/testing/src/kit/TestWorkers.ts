/**
 * The worker of a test: the real one, in a process that can be killed. What is dead does nothing any more: its fibers are not
 * run on, no finalizer is called, its node sees a connection that closed without goodbye. A new one takes its place at once.
 */
import * as HubLink from "@orrery/cluster/HubLink"
import type { HubSession, WorkerHub } from "@orrery/cluster/WorkerHub"
import { Handlers } from "@orrery/core/Handlers"
import * as LocalLinks from "@orrery/worker/LocalLinks"
import * as Worker from "@orrery/worker/Worker"
import { Effect, Exit, Layer, Runtime, Scheduler, Scope, type TestClock } from "effect"
import type { TestAttempts } from "./TestAttempts.js"
import { real } from "./TestTime.js"

export interface TestWorkers {
  /** The living one. */
  readonly current: () => string
  /** Kills it, and starts another. */
  readonly crash: Effect.Effect<void>
}

export interface TestWorkersOptions {
  readonly hub: WorkerHub
  readonly leaseMs: number
  readonly slots: number
  readonly clock: TestClock.TestClock
  readonly handlers: Handlers["Type"]
  readonly attempts: TestAttempts
}

/** How long handlers may take to be interrupted at the end of a test. */
const closeTimeout = "2 seconds"

/** As `Effect.never`, without the timer that keeps a process from its end. */
const dead = Effect.async<never>(() => undefined)

interface Incarnation {
  readonly id: string
  isAlive: boolean
  session: HubSession | undefined
  readonly scope: Scope.CloseableScope
}

/** Runs nothing once its process is dead. */
const schedulerOf = (process: Incarnation): Scheduler.Scheduler => ({
  shouldYield: (fiber) => Scheduler.defaultScheduler.shouldYield(fiber),
  scheduleTask: (task, priority) => {
    if (!process.isAlive) return
    Scheduler.defaultScheduler.scheduleTask(() => process.isAlive && task(), priority)
  }
})

export const make = (options: TestWorkersOptions) =>
  Effect.gen(function*() {
    const { attempts, clock, hub } = options
    const outer = yield* Effect.runtime<never>()
    let count = 0
    let current: Incarnation | undefined

    const start = Effect.gen(function*() {
      count += 1
      const process: Incarnation = {
        id: `worker-${count}`,
        isAlive: true,
        session: undefined,
        scope: yield* Scope.make()
      }
      current = process
      const attach: WorkerHub["attach"] = (hello, deliver, closed) => {
        const session = hub.attach(hello, (message) => process.isAlive && deliver(message), closed)
        if (session !== "full") process.session = session
        return session
      }
      const scheduler = schedulerOf(process)
      // Handlers go by the clock of the test, the rest of the worker by the real one.
      const runtime = yield* Effect.runtime<never>().pipe(Effect.withScheduler(scheduler), Effect.withClock(clock))
      const layer = Worker.layer({ slots: options.slots, workerId: process.id, shutdownGrace: 0, runtime }).pipe(
        Layer.provide(LocalLinks.layer([HubLink.make("node", { attach }, options.leaseMs)])),
        Layer.provide(Layer.succeed(Handlers, attempts.of(process.id, options.handlers, crash(process))))
      )
      yield* Layer.buildWithScope(layer, process.scope).pipe(Effect.withScheduler(scheduler))
    }).pipe(real)

    const kill = (process: Incarnation): void => {
      process.isAlive = false
      attempts.forget(process.id)
      process.session?.lost()
    }

    const crash = (process: Incarnation): Effect.Effect<never> =>
      Effect.suspend(() => {
        if (process.isAlive) {
          kill(process)
          Runtime.runFork(outer, start)
        }
        return dead
      })

    yield* start
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        const last = current!
        return Scope.close(last.scope, Exit.void).pipe(
          Effect.disconnect,
          Effect.timeoutOption(closeTimeout),
          Effect.ensuring(Effect.sync(() => kill(last)))
        )
      }).pipe(real)
    )
    const workers: TestWorkers = {
      current: () => current!.id,
      crash: Effect.suspend(() => {
        kill(current!)
        return start
      })
    }
    return workers
  })
