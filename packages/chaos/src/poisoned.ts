/** Everything a handler should not do, each in its way. */
import { Effect } from "effect"
import { type Poison, StepFailed } from "./chaosTasks.js"

/** Longer than the lease of a worker (10 s by default): it cannot even say that it lives. */
const blockMs = 12_000
const memoryBytes = 512 * 1024 * 1024

const overflow = (depth: number): number => 1 + overflow(depth + 1)

const circle = (): unknown => {
  const made: { self?: unknown } = {}
  made.self = made
  return made
}

const behaviours: { readonly [Kind in Poison]: () => Effect.Effect<unknown, StepFailed> } = {
  throws: () => {
    throw new Error("thrown by a handler")
  },
  throwsString: () => {
    // eslint-disable-next-line @typescript-eslint/only-throw-error -- what a careless handler does is the point
    throw "no Error at all"
  },
  fails: () => new StepFailed({ attempt: 0 }),
  exits: () => Effect.sync(() => process.exit(1)),
  overflows: () => Effect.sync(() => overflow(0)),
  returnsCircle: () => Effect.sync(circle),
  neverEnds: () => Effect.never,
  blocksWorker: () =>
    Effect.sync(() => {
      const until = performance.now() + blockMs
      while (performance.now() < until);
    }),
  eatsMemory: () =>
    Effect.sync(() => {
      const eaten = Buffer.alloc(memoryBytes, 1)
      throw new Error(`took ${eaten.length} bytes, and failed`)
    })
}

export const poisoned = (kind: Poison): Effect.Effect<unknown, StepFailed> => Effect.suspend(behaviours[kind])
