/** Moves idle credit to where runs wait for it, by the rules of `Credit.ts`. */
import { Duration, Effect, Either, Runtime } from "effect"
import type { Attempts, Binding } from "./Attempts.js"
import { targets } from "./Credit.js"

export interface Balancer {
  readonly attempts: Attempts
  readonly slots: number
  /** The open sessions. */
  readonly bindings: Set<Binding>
  /** No node may start anything now: too many outcomes wait for an answer. */
  isPaused: boolean
  /** Somebody has less than it should: ends of attempts matter. */
  isWanting: boolean
  /** Open when there may be something to do. */
  readonly wake: Effect.Latch
}

/** Shortest time between two rounds: a burst of changes makes one. */
const roundPause = Duration.millis(20)
/** Time limit of one credit call: a frozen node holds the others up no longer. */
const callTimeout = Duration.millis(250)
/** Credit calls at once: more nodes than that make a round of several steps. */
const callsMax = 64
/** How long a node that missed it is left alone. */
const quietTime = Duration.seconds(2)

/** Splits the slots anew whenever woken. No timer runs while there is nothing to do. */
export const run = (balancer: Balancer): Effect.Effect<never> =>
  balancer.wake.await.pipe(
    Effect.zipRight(Effect.suspend(() => {
      balancer.wake.unsafeClose()
      return round(balancer)
    })),
    Effect.zipRight(Effect.sleep(roundPause)),
    Effect.forever
  )

/** Lowers shares, then raises others by what is free now. What is not free yet is left to a later round. */
export const round = (balancer: Balancer): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { attempts } = balancer
    const open = [...balancer.bindings]
    const wanted = targets(
      capacity(balancer),
      open.map((binding) => ({
        credit: binding.credit,
        running: binding.running,
        hungry: binding.hungry,
        leaving: !binding.isListed()
      }))
    )
    const isBelow = (binding: Binding, index: number) => wanted[index]! < binding.credit
    // More may be counted than is out, when an attempt ended while its node answered: ask again.
    const isDoubtful = (binding: Binding) => binding.ceiling > binding.credit && binding.held.size < binding.ceiling
    yield* Effect.forEach(
      open,
      (binding, index) =>
        isBelow(binding, index) || isDoubtful(binding) ? setCredit(binding, wanted[index]!, "lower") : Effect.void,
      { concurrency: callsMax, discard: true }
    )
    const raises: Array<Effect.Effect<void>> = []
    let free = balancer.slots - used(balancer)
    for (const isHungry of [true, false]) {
      for (const [index, binding] of open.entries()) {
        const more = Math.min(wanted[index]! - binding.credit, free)
        if (binding.hungry !== isHungry || more <= 0 || !binding.isOpen || isQuiet(binding)) continue
        free -= more
        raises.push(setCredit(binding, binding.credit + more, "raise"))
      }
    }
    yield* Effect.all(raises, { concurrency: callsMax, discard: true })
    balancer.isWanting = open.some((binding, index) =>
      binding.credit !== wanted[index] || binding.ceiling > binding.credit
    )
    if (open.some(isQuiet)) Runtime.runFork(attempts.runtime, Effect.delay(balancer.wake.open, quietTime))
  })

/** Asked after each attempt: no copy of the set. */
export const isAnyHungry = ({ bindings }: Balancer): boolean => {
  for (const binding of bindings) if (binding.hungry) return true
  return false
}

/** Slots for attempts of attached nodes: others may still be occupied by attempts whose node is gone. */
const capacity = ({ attempts, bindings, isPaused, slots }: Balancer): number => {
  if (isPaused || attempts.isStopping) return 0
  let astray = attempts.running
  for (const binding of bindings) astray -= binding.running
  return Math.max(0, slots - astray)
}

const used = ({ attempts, bindings }: Balancer): number => {
  let total = attempts.running
  for (const binding of bindings) total += Math.max(binding.ceiling - binding.running, 0)
  return total
}

const isQuiet = (binding: Binding): boolean => binding.isOpen && performance.now() < binding.quietUntil

/** A raise counts from before the call, a lowering only from its answer: the sum is never above the slots. */
const setCredit = (binding: Binding, credit: number, direction: "raise" | "lower"): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (isQuiet(binding) || !binding.isOpen) return Effect.void
    if (direction === "raise") {
      binding.ceiling += credit - binding.credit
      binding.credit = credit
    }
    return binding.session.setCredit(credit).pipe(
      Effect.disconnect,
      Effect.timeout(callTimeout),
      Effect.either,
      Effect.map((answer) => {
        if (Either.isLeft(answer)) {
          // Whether the node has heard it is unknown: the larger number counts until a call is answered.
          binding.quietUntil = performance.now() + Duration.toMillis(quietTime)
        } else if (direction === "lower") {
          binding.credit = credit
          binding.ceiling = Math.max(credit, answer.right)
        }
      })
    )
  })
