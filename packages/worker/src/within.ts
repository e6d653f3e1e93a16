/**
 * Waiting that ends after a while, for what a worker does with each message. `Effect.timeout` and `Effect.race` run two fibers against
 * each other, and `Effect.disconnect` a third; here a timer is all there is besides the call.
 */
import { Effect, type Exit, FiberId } from "effect"

/** How the call ended; `undefined`: not within `ms`. Then it is interrupted, and nobody waits for its end. */
export const within = <A, E, R>(
  call: Effect.Effect<A, E, R>,
  ms: number
): Effect.Effect<Exit.Exit<A, E> | undefined, never, R> =>
  Effect.flatMap(Effect.forkDaemon(call), (fiber) =>
    Effect.async((resume) => {
      const ended = (exit: Exit.Exit<A, E>): void => {
        clearTimeout(timer)
        resume(Effect.succeed(exit))
      }
      const giveUp = (): void => {
        fiber.removeObserver(ended)
        fiber.unsafeInterruptAsFork(FiberId.none)
      }
      const timer = setTimeout(() => {
        giveUp()
        resume(Effect.succeed(undefined))
      }, ms)
      fiber.addObserver(ended)
      return Effect.sync(() => {
        clearTimeout(timer)
        giveUp()
      })
    }))

/** A latch for one fiber, which need not wait for ever. */
export class Bell {
  private isOpen = false
  private told: (() => void) | undefined

  open(): void {
    this.isOpen = true
    this.told?.()
  }

  close(): void {
    this.isOpen = false
  }

  /** Until it is open, at most `ms`. */
  within(ms: number): Effect.Effect<void> {
    return Effect.async((resume) => {
      if (this.isOpen) return resume(Effect.void)
      const end = (): void => {
        clearTimeout(timer)
        this.told = undefined
        resume(Effect.void)
      }
      const timer = setTimeout(end, ms)
      this.told = end
      return Effect.sync(() => {
        clearTimeout(timer)
        this.told = undefined
      })
    })
  }
}
