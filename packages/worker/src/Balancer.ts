/** Moves idle credit to where runs wait for it, by the rules of `Credit.ts`. */
import { Duration, Effect, Exit, Runtime } from "effect"
import { type Attempts, startReady } from "./Attempts.js"
import type { Binding } from "./Binding.js"
import * as Turns from "./Turns.js"
import { within } from "./within.js"

export interface Balancer {
  readonly attempts: Attempts
  readonly slots: number
  /** The open sessions. */
  readonly bindings: Set<Binding>
  /** No node may start anything now: too many outcomes wait for an answer. */
  isPaused: boolean
  /** Somebody has less than it should: ends of attempts matter. */
  isWanting: boolean
  /** A round is to come when what nodes have used lately no longer counts. */
  looksAgain: boolean
  readonly turns: Turns.Turns<Binding>
  /** Open when there may be something to do. */
  readonly wake: Effect.Latch
}

/** Shortest time between two rounds: a burst of changes makes one. */
const roundPause = Duration.millis(20)
/** How long what a node has used of its share counts as used, ms. */
const peakMs = 250
/** Time limit of one credit call, ms: a frozen node holds the others up no longer. */
const callMsMax = 250
/** Credit calls at once: more nodes than that make a round of several steps. */
const callsMax = 64
/** What a node that has not answered may have ahead: it is told again. */
const unknown = -1
/** A node that counts attempts which are not held here is asked again after this, ms: it may have found out without a word. */
const doubtMs = 500
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
export const round: (balancer: Balancer) => Effect.Effect<void> = Effect.fnUntraced(function*(balancer) {
  const { attempts } = balancer
  const open = [...balancer.bindings]
  const room = capacity(balancer)
  const { againMs, wanted } = Turns.share(balancer.turns, room, open.map(playerOf), performance.now())
  // In proportion: what waits for a node starts in the slots of its share.
  const aheadOf = (credit: number) => room === 0 ? 0 : Math.floor(attempts.pace.allowed * credit / balancer.slots)
  const isBelow = (binding: Binding, index: number) => wanted[index]! < binding.credit
  // More may be counted than is out, when an attempt ended while its node answered: ask again.
  const isDoubtful = (binding: Binding) => binding.ceiling > binding.credit && slotsHeld(binding) < binding.ceiling
  const lowers: Array<Effect.Effect<void>> = []
  open.forEach((binding, index) => {
    if (!isBelow(binding, index) && !isDoubtful(binding)) return
    lowers.push(setCredit(attempts, binding, { credit: wanted[index]!, ahead: aheadOf(wanted[index]!) }, "lower"))
  })
  yield* atOnce(lowers)
  const raises: Array<Effect.Effect<void>> = []
  let free = balancer.slots - used(balancer)
  for (const isHungry of [true, false]) {
    for (const [index, binding] of open.entries()) {
      const more = Math.min(wanted[index]! - binding.credit, free)
      if (binding.hungry !== isHungry || more <= 0 || !binding.isOpen || isQuiet(binding)) continue
      free -= more
      const credit = binding.credit + more
      raises.push(setCredit(attempts, binding, { credit, ahead: aheadOf(credit) }, "raise"))
    }
  }
  yield* atOnce(raises)
  const aheads: Array<Effect.Effect<void>> = []
  for (const binding of open) {
    const { ahead, credit } = binding
    if (ahead !== aheadOf(credit)) {
      aheads.push(setCredit(attempts, binding, { credit, ahead: aheadOf(credit) }, "raise"))
    }
  }
  yield* atOnce(aheads)
  balancer.isWanting = open.some((binding, index) =>
    binding.credit !== wanted[index] || binding.ceiling > binding.credit
  )
  if (open.some(isQuiet)) Runtime.runFork(attempts.runtime, Effect.delay(balancer.wake.open, quietTime))
  // What was used until now may be free for others soon, though no attempt ends.
  const isSettling = isUneven(balancer) && open.some(({ hungry, peak, running }) => !hungry && peak > running)
  const lookMs = Math.min(
    againMs ?? Infinity,
    isSettling ? peakMs : Infinity,
    open.some(isDoubtful) ? doubtMs : Infinity
  )
  if (lookMs < Infinity && !balancer.looksAgain) {
    balancer.looksAgain = true
    const look = Effect.sync(() => {
      balancer.looksAgain = false
      balancer.wake.unsafeOpen()
    })
    Runtime.runFork(attempts.runtime, Effect.delay(look, lookMs))
  }
})

/** Most rounds have nothing to say to most nodes: no fibers for that. */
const atOnce = (calls: ReadonlyArray<Effect.Effect<void>>): Effect.Effect<void> =>
  calls.length > 1 ? Effect.all(calls, { concurrency: callsMax, discard: true }) : calls[0] ?? Effect.void

const playerOf = (binding: Binding): readonly [Binding, Turns.Player] => [binding, {
  credit: binding.credit,
  running: usedOf(binding),
  hungry: binding.hungry,
  leaving: !binding.isListed(),
  need: binding.need,
  largeAt: binding.largeAt
}]

/** That its attempts take or will take, of those that are not over. */
const slotsHeld = ({ held }: Binding): number => {
  let slots = 0
  for (const each of held) slots += each.slots
  return slots
}

/** Some nodes are hungry and others are not. Asked after each attempt: no copy of the set. */
export const isUneven = ({ bindings }: Balancer): boolean => {
  let hungry = 0
  for (const binding of bindings) if (binding.hungry) hungry += 1
  return hungry > 0 && hungry < bindings.size
}

/** What a node uses of its share: the most it used lately, as moving credit for a moment gains nothing. */
const usedOf = (binding: Binding): number => {
  const used = Math.max(binding.peak, binding.running)
  const now = performance.now()
  if (now - binding.peakSince > peakMs) {
    binding.peak = binding.running
    binding.peakSince = now
  }
  return used
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
const setCredit = (
  attempts: Attempts,
  binding: Binding,
  { ahead, credit }: { readonly credit: number; readonly ahead: number },
  direction: "raise" | "lower"
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (isQuiet(binding) || !binding.isOpen) return Effect.void
    const promised = binding.ceiling
    if (direction === "raise") {
      binding.ceiling += credit - binding.credit
      binding.credit = credit
      startReady(attempts, binding)
    }
    binding.ahead = ahead
    return Effect.map(within(binding.session.setCredit(credit, ahead, attempts.slots), callMsMax), (answer) => {
      if (answer === undefined || Exit.isFailure(answer)) {
        // Whether the node has heard it is unknown: the larger number counts until a call is answered.
        binding.ahead = unknown
        binding.quietUntil = performance.now() + Duration.toMillis(quietTime)
      } else if (direction === "lower") {
        binding.credit = credit
        // No more than was promised has a slot; the rest of what is out waits.
        binding.ceiling = Math.max(credit, Math.min(answer.value, promised))
      }
    })
  })
