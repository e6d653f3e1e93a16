/** Runs one history after the other; the first that breaks a promise is made small and told. */
import type { Violation } from "../history/checkers.js"
import * as Coverage from "./Coverage.js"
import type { Plan } from "./Plan.js"
import { shrink } from "./shrink.js"
import * as Simulation from "./Simulation.js"

export interface Failure {
  readonly seed: number
  readonly violations: ReadonlyArray<Violation>
  /** The smallest plan found that breaks the same promise. */
  readonly plan: Plan
}

export interface Explored {
  readonly histories: number
  readonly runs: number
  readonly faults: number
  readonly steps: number
  /** What the clusters believe to have taken, ms. */
  readonly simulatedMs: number
  readonly coverage: Coverage.Coverage
  readonly failure: Failure | undefined
}

export const nothing = (): Explored => ({
  histories: 0,
  runs: 0,
  faults: 0,
  steps: 0,
  simulatedMs: 0,
  coverage: Coverage.none(),
  failure: undefined
})

/** Both together. Of two failures that of the lower seed. */
export const plus = (a: Explored, b: Explored): Explored => {
  const coverage = Coverage.none()
  Coverage.add(coverage, a.coverage)
  Coverage.add(coverage, b.coverage)
  const isLower = b.failure !== undefined && (a.failure === undefined || b.failure.seed < a.failure.seed)
  return {
    histories: a.histories + b.histories,
    runs: a.runs + b.runs,
    faults: a.faults + b.faults,
    steps: a.steps + b.steps,
    simulatedMs: a.simulatedMs + b.simulatedMs,
    coverage,
    failure: isLower ? b.failure : a.failure
  }
}

/** Seeds `from` to `from + count - 1`. Ends with the first failure, or when `isLate` says so. */
export const explore = (
  { count, from, isLate = () => false }: {
    readonly from: number
    readonly count: number
    readonly isLate?: () => boolean
  },
  options: Simulation.Options
): Explored => {
  const sum = { histories: 0, runs: 0, faults: 0, steps: 0, simulatedMs: 0, coverage: Coverage.none() }
  for (let seed = from; seed < from + count && !isLate(); seed++) {
    const { coverage, plan, simulatedMs, steps, violations } = Simulation.run(Simulation.planOf(seed, options), options)
    sum.histories += 1
    sum.runs += plan.runs.length
    sum.faults += plan.faults.length
    sum.steps += steps
    sum.simulatedMs += simulatedMs
    Coverage.add(sum.coverage, coverage)
    const [first] = violations
    if (first === undefined) continue
    const breaksIt = (smaller: Plan): boolean =>
      Simulation.run(smaller, options).violations.some(({ checker }) => checker === first.checker)
    return { ...sum, failure: { seed, violations, plan: shrink(plan, breaksIt) } }
  }
  return { ...sum, failure: undefined }
}

/** What to read, and how to see it again. */
export const told = ({ plan, seed, violations }: Failure): string =>
  [
    `seed ${seed}: ${violations.length} violations`,
    ...violations.slice(0, violationsShownMax).map(({ checker, run, what }) => `  ${checker}: ${run ?? ""} ${what}`),
    `smallest plan: ${plan.nodes} nodes, ${plan.workers} workers of ${plan.slots} slots`,
    ...plan.faults.map(({ at, failpoint, forMs, kind, skip, target }) =>
      `  at ${Math.round(at)} ms ${kind} ${kind === "failpoint" ? `${failpoint} after ${skip}` : target} for ${
        Math.round(forMs)
      } ms`
    ),
    ...plan.runs.map(({ at, delayMs, id, task }) => `  at ${Math.round(at)} ms ${task} ${id}, due after ${delayMs} ms`),
    `again: npm run simulate -- --from ${seed} --count 1`
  ].join("\n")

const violationsShownMax = 5
