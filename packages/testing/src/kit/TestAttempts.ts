/** The attempts that run in a test: which of them wait, and what was asked to happen to the next ones. */
import { Attempt, type Handler, type Handlers, type Registered } from "@orrery/core/Handlers"
import type { Outcome } from "@orrery/core/Run"
import { Effect, type Exit, Option, type TestClock } from "effect"

/** What happens to the next attempt of a task. */
export type Fault =
  /** The handler is not called: the attempt ends so. */
  | { readonly _tag: "end"; readonly exit: Exit.Exit<unknown, unknown> }
  /** The worker dies: before the handler has done anything, or when it has done all and nobody knows. */
  | { readonly _tag: "crash"; readonly when: "before" | "after" }

/** Faults of one task that wait for their attempts. */
const faultsMax = 1_000

interface Active {
  readonly worker: string
  /** Sleeps, and waits for other runs, it is in. */
  waits: number
}

const keyOf = ({ fencingToken, runId }: Attempt["Type"]): string => `${runId} ${fencingToken}`

export class TestAttempts {
  private readonly active = new Map<string, Active>()
  private readonly faults = new Map<string, Array<Fault>>()
  /** Attempts begun and ended so far: as long as it is the same, none has moved. */
  moves = 0

  constructor(private readonly clock: TestClock.TestClock) {}

  /** For the next attempt of the task; those asked for before come first. */
  arrange(task: string, fault: Fault): Effect.Effect<void> {
    return Effect.suspend(() => {
      const list = this.faults.get(task) ?? []
      if (list.length >= faultsMax) return Effect.dieMessage(`more than ${faultsMax} faults wait for ${task}`)
      this.faults.set(task, [...list, fault])
      return Effect.void
    })
  }

  /** Attempts of this worker whose handlers are at work. */
  countOf(worker: string): number {
    return [...this.active.values()].filter((each) => each.worker === worker).length
  }

  /** None of them can go on before the clock is moved, or another run ends. */
  get allWait(): boolean {
    for (const { waits } of this.active.values()) if (waits === 0) return false
    return true
  }

  /** The worker is dead, and they with it. */
  forget(worker: string): void {
    for (const [key, each] of this.active) if (each.worker === worker) this.active.delete(key)
    this.moves += 1
  }

  /** While it lasts the attempt it is called from, if it is called from one, counts as waiting. */
  waiting<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.flatMap(Effect.serviceOption(Attempt), (attempt) => {
      const active = Option.isNone(attempt) ? undefined : this.active.get(keyOf(attempt.value))
      return active === undefined ? effect : this.during(active, effect)
    })
  }

  private during<A, E, R>(active: Active, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      active.waits += 1
      this.moves += 1
      return Effect.ensuring(
        effect,
        Effect.sync(() => {
          active.waits -= 1
          this.moves += 1
        })
      )
    })
  }

  /** The handlers as this worker has them. */
  of(worker: string, inner: Handlers["Type"], crash: Effect.Effect<never>): Handlers["Type"] {
    return {
      ...inner,
      find: (task) => {
        const found = inner.find(task)
        return found === undefined ? undefined : { ...found, handler: this.handler(worker, task, found, crash) }
      }
    }
  }

  private handler(worker: string, task: string, found: Registered, crash: Effect.Effect<never>): Handler {
    return (payload, attempt) =>
      Effect.suspend(() => {
        const key = keyOf(attempt)
        const active: Active = { worker, waits: 0 }
        const handle = Effect.suspend(() => found.handler(payload, attempt))
        // While it sleeps it waits.
        const clock = Object.create(this.clock, {
          sleep: {
            value: (duration: Parameters<TestClock.TestClock["sleep"]>[0]) =>
              this.during(active, this.clock.sleep(duration))
          }
        }) as TestClock.TestClock
        this.active.set(key, active)
        this.moves += 1
        return this.faulty(task, found, handle, crash).pipe(
          Effect.withClock(clock),
          Effect.ensuring(Effect.sync(() => {
            this.active.delete(key)
            this.moves += 1
          }))
        )
      })
  }

  private faulty(
    task: string,
    { conclude }: Registered,
    handle: Effect.Effect<Outcome, never, Attempt>,
    crash: Effect.Effect<never>
  ): Effect.Effect<Outcome, never, Attempt> {
    const fault = this.faults.get(task)?.shift()
    if (fault === undefined) return handle
    if (fault._tag === "crash") return fault.when === "before" ? crash : Effect.zipRight(handle, crash)
    return conclude === undefined
      ? Effect.dieMessage(`the handler of ${task} was not made by toLayer`)
      : conclude(fault.exit)
  }
}
