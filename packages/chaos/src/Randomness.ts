/** All chance of a scenario, from one seed: the same seed asks the same of the same system. */
import { PCGRandom } from "effect/Utils"

export interface Randomness {
  /** In [0, 1). */
  readonly next: () => number
  /** `from` to `to`, both included. */
  readonly between: (from: number, to: number) => number
  readonly chance: (probability: number) => boolean
  readonly pick: <A>(from: ReadonlyArray<A>) => A
  /** Another stream: what one part of a scenario draws does not move what another gets. */
  readonly fork: () => Randomness
}

const seedMax = 2 ** 31

export const make = (seed: number): Randomness => {
  const source = new PCGRandom(seed)
  const next = (): number => source.number()
  return {
    next,
    between: (from, to) => from + Math.floor(next() * (to - from + 1)),
    chance: (probability) => next() < probability,
    pick: (from) => from[Math.floor(next() * from.length)]!,
    fork: () => make(Math.floor(next() * seedMax))
  }
}
