/**
 * What a simulation does: how many machines, which runs are asked for, what goes wrong and when. Made from a seed; a
 * part of a plan is a plan too, so that a failing one can be made smaller.
 */
import { type FailpointName, isOfCompletions, names } from "@orrery/core/Failpoint"
import type { RunId } from "@orrery/core/RunId"
import { parsePolicy } from "@orrery/core/RunRequest"
import { Random } from "../Random.js"

export interface PlannedTask {
  readonly task: string
  readonly queue: string
  /** JSON text of a `RunPolicy`. */
  readonly policy: string
  /** JSON text; `n` counts the runs of the plan. */
  readonly make: (random: Random, n: number) => { readonly payload: string; readonly keys: string | null }
}

export interface PlannedRun {
  readonly id: RunId
  readonly task: string
  readonly queue: string
  readonly policy: string
  readonly payload: string
  readonly keys: string | null
  readonly priority: number
  /** When the client asks for it, ms. */
  readonly at: number
  /** Due so long after it was asked for, ms; 0: at once. */
  readonly delayMs: number
  /** The delay is an instant, made by the client, and not counted by the owner. */
  readonly isInstant: boolean
  /** Committed to the inbox by an application; asked for of a node otherwise. */
  readonly isInTransaction: boolean
  /** Cancelled so long after it was acknowledged, ms. */
  readonly cancelAfterMs: number | undefined
  /** Read so long after it was acknowledged, ms. */
  readonly readAfterMs: number | undefined
}

/** `lose`: without a word, as when a machine loses power. `drain`: as at SIGTERM. */
export const faultKinds = [
  "crashNode",
  "loseNode",
  "pauseNode",
  "drainNode",
  "crashWorker",
  "loseWorker",
  "pauseWorker",
  "drainWorker",
  "cutNodeFromStore",
  "cutWorkerFromNode",
  "resetConnections",
  "storeDown",
  "lostAnswers",
  "clockStep",
  "moveShard",
  "stealShard",
  "failpoint"
] as const
/** No handler of a simulation ends its run in a transaction of its own. */
const failpointNames = names.filter((name) => !isOfCompletions(name))
export type FaultKind = typeof faultKinds[number]

export interface PlannedFault {
  readonly kind: FaultKind
  /** ms */
  readonly at: number
  readonly forMs: number
  /** Which of the nodes or workers, counted round. */
  readonly target: number
  readonly failpoint: FailpointName
  /** The failpoint is passed so often before it strikes. */
  readonly skip: number
}

export interface Plan {
  readonly seed: number
  readonly nodes: number
  readonly workers: number
  readonly slots: number
  readonly windowRunsMax: number
  readonly lossPart: number
  readonly doublePart: number
  readonly slowPart: number
  /** The schedules of the simulation are there. */
  readonly hasSchedules: boolean
  readonly runs: ReadonlyArray<PlannedRun>
  readonly faults: ReadonlyArray<PlannedFault>
}

export interface PlanOptions {
  readonly tasks: ReadonlyArray<PlannedTask>
  readonly runsMax: number
  readonly faultsMax: number
  /** What may go wrong. */
  readonly kinds: ReadonlyArray<FaultKind>
}

/** Runs are asked for, and things go wrong, in this time, ms. */
export const activeMs = 12_000

/** Part of the histories that have schedules: they make one longer. */
const schedulesPart = 0.3

export const make = (seed: number, options: PlanOptions): Plan => {
  const random = new Random(seed)
  const isCalm = random.chance(0.1)
  // A worker must be as large as the largest run.
  const slotsMin = Math.max(1, ...options.tasks.map(slotsOf))
  return {
    seed,
    nodes: random.integer(1, 3),
    workers: random.integer(1, 3),
    slots: random.integer(slotsMin, slotsMin + 5),
    windowRunsMax: random.pick([2, 4, 8, 50]),
    lossPart: isCalm ? 0 : random.pick([0, 0.02, 0.1]),
    doublePart: isCalm ? 0 : random.pick([0, 0.05, 0.2]),
    slowPart: isCalm ? 0 : random.pick([0, 0.01, 0.05]),
    runs: plannedRuns(random.fork(), options),
    faults: isCalm ? [] : plannedFaults(random.fork(), options),
    hasSchedules: random.chance(schedulesPart)
  }
}

/** Of the runs, in the histories that have any. */
const transactionsPart = 0.5
const transactionalHistories = 0.4
const slotsOf = ({ policy }: PlannedTask): number => {
  const parsed = parsePolicy(policy)
  return "retry" in parsed ? parsed.slots ?? 1 : 1
}

const plannedRuns = (random: Random, { runsMax, tasks }: PlanOptions): ReadonlyArray<PlannedRun> => {
  // All in one burst, or spread.
  const inTransactionPart = random.chance(transactionalHistories) ? transactionsPart : 0
  const spanMs = random.pick([50, 2_000, activeMs])
  return Array.from({ length: random.integer(1, runsMax) }, (_, n) => {
    const { make, policy, queue, task } = random.pick(tasks)
    return {
      id: idOf(random, n),
      task,
      queue,
      policy,
      ...make(random, n),
      priority: random.integer(0, 9),
      at: random.between(0, spanMs),
      delayMs: random.chance(0.3) ? random.integer(1, 6_000) : 0,
      isInstant: random.chance(0.5),
      cancelAfterMs: random.chance(0.1) ? random.between(0, 3_000) : undefined,
      readAfterMs: random.chance(0.3) ? random.between(0, 300) : undefined,
      isInTransaction: random.chance(inTransactionPart)
    }
  })
}

const idOf = (random: Random, n: number): RunId => {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0")
  const tail = hex(random.integer(0, 0xffffff), 6) + hex(random.integer(0, 0xffffff), 6)
  return `00000000-${hex(n & 0xffff, 4)}-7${hex(random.integer(0, 0xfff), 3)}-8${
    hex(random.integer(0, 0xfff), 3)
  }-${tail}` as RunId
}

const plannedFaults = (random: Random, { faultsMax, kinds }: PlanOptions): ReadonlyArray<PlannedFault> =>
  Array.from({ length: random.integer(0, faultsMax) }, () => ({
    kind: random.pick(kinds),
    at: random.between(0, activeMs),
    // Around what the system waits for: graces of 1 and 2 s, silence of 3.5 s, leases of 10 s.
    forMs: random.pick([20, 300, 1_500, 4_000, 9_000, 14_000]) * random.between(0.7, 1.3),
    target: random.integer(0, 11),
    failpoint: random.pick(failpointNames),
    skip: random.integer(0, 20)
  }))
