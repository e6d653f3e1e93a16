/**
 * One simulated operating system process: its fibers, timers and clocks. It can be killed between any two steps, or stand
 * still; what is dead does nothing any more, what stands still does it later.
 */
import {
  Effect,
  type Exit,
  Logger,
  LogLevel,
  Random as EffectRandom,
  Runtime,
  RuntimeFlags,
  type Scheduler
} from "effect"
import type { SimEvent, World } from "./World.js"

/** Thrown through the code of a process that has been killed in the middle of a step. */
class Killed extends Error {}

/** Fiber steps in a row without an end: a loop that never waits. */
const stepsInARowMax = 1_000_000

/** Keeps events of one instant in their order, ms. */
export const instantMs = 1e-6

export class SimProcess {
  isAlive = true
  /** What the process's clock of the wall is wrong by, ms; a step of the clock changes it. */
  clockErrorMs = 0
  private isPaused = false
  /** Events that came while it stood still. */
  private stash: Array<() => void> = []
  private tasks: Array<() => void> = []
  private readonly startedAt: number
  private readonly runtime: Runtime.Runtime<never>
  private readonly scheduler: Scheduler.Scheduler = {
    scheduleTask: (task) => void this.tasks.push(task),
    shouldYield: () => false
  }

  /** `drift`: how fast its clocks run, 1 being right. */
  constructor(readonly world: World, readonly name: string, private readonly drift: number = 1) {
    this.startedAt = world.now
    const seed = world.random.integer(0, 2 ** 31)
    this.runtime = Effect.runSync(
      Effect.runtime<never>().pipe(
        Effect.withScheduler(this.scheduler),
        Effect.withRandom(EffectRandom.make(seed)),
        Logger.withMinimumLogLevel(LogLevel.None),
        // Counts and times of fibers that nobody reads.
        Effect.map(Runtime.disableRuntimeFlag(RuntimeFlags.RuntimeMetrics))
      )
    )
  }

  monotonic(): number {
    return (this.world.now - this.startedAt) * this.drift
  }

  wallClock(): number {
    return this.world.databaseTime + this.clockErrorMs
  }

  /** One turn of its event loop, now: `run`, and every fiber that can go on. Later, when it stands still. */
  enter(run: () => void): void {
    if (!this.isAlive) return
    if (this.isPaused) {
      this.stash.push(run)
      return
    }
    const outer = this.world.current
    this.world.current = this
    try {
      run()
      for (let at = 0; at < this.tasks.length && this.isAlive; at++) {
        if (at > stepsInARowMax) throw new Error(`${this.name} never waits`)
        this.tasks[at]!()
      }
    } catch (error) {
      if (!(error instanceof Killed)) throw error
    } finally {
      this.tasks = []
      this.world.current = outer
    }
  }

  /** After so many ms by its own clock. */
  later(ms: number, run: () => void): SimEvent {
    return this.world.after(ms / this.drift, () => this.enter(run))
  }

  /** Before this turn ends. */
  soon(run: () => void): void {
    this.tasks.push(run)
  }

  /** Runs an effect as a fiber of this process. Call it in a turn of the process. */
  run<A, E>(effect: Effect.Effect<A, E>, done: (exit: Exit.Exit<A, E>) => void = () => undefined): void {
    const fiber = Runtime.runFork(this.runtime, effect)
    fiber.addObserver((exit) => {
      if (this.isAlive) done(exit)
    })
  }

  /** Nothing of it happens any more. In a turn of its own, the turn ends here. */
  kill(): void {
    this.isAlive = false
    this.stash = []
    if (this.world.current === this) throw new Killed()
  }

  pause(): void {
    this.isPaused = true
  }

  /** All that has come meanwhile happens now, in its order. */
  resume(): void {
    if (!this.isPaused) return
    this.isPaused = false
    const stash = this.stash
    this.stash = []
    stash.forEach((run, at) => this.world.after(at * instantMs, () => this.enter(run)))
  }
}
