/** Measures: every case for every system, in rounds that alternate between the systems. */
import { Cause, Effect } from "effect"
import { cpus } from "node:os"
import type { Description } from "./Calls.js"
import type { Figure, Series } from "./Figure.js"
import { type Bench, NotWithin, notWithinPrefix } from "./Stage.js"
import { oursId } from "./systems/index.js"
import { type Case, type Measured, workloadOf } from "./Workload.js"

/** Longest for ours, one round, s: one that is slow is to be seen, and not to be left out. */
const oursWithinS = 45 * 60
/** Longest for a peer, one round of a case that does not say otherwise, s. */
const withinSDefault = 300

/** How the reason begins when a system was measured and it went wrong. */
const failedPrefix = "failed: "

/** It takes part in the case, and has no figure all the same. */
export const isFailure = (reason: string): boolean =>
  reason.startsWith(failedPrefix) || reason.startsWith(notWithinPrefix)

export interface Plan {
  readonly cases: ReadonlyArray<Case>
  readonly systems: ReadonlyArray<Description>
  readonly rounds: number
  /** Each measurement waits for a quiet machine, some seconds at most. */
  readonly quietly: boolean
  /** Told as it goes, a line at a time. */
  readonly onProgress: (line: string) => void
}

/** A case that fails for one system is told, and the others go on. */
export const measureAll = (bench: Bench, plan: Plan): Effect.Effect<ReadonlyArray<Figure>> =>
  Effect.suspend(() => {
    const done: Done = new Map()
    return Effect.map(Effect.forEach(plan.cases, (one) => measureCase(bench, plan, one, done)), (all) => all.flat())
  })

/** What has been measured so far: by case, by system. */
type Done = Map<string, Map<string, ReadonlyArray<Measured>>>

const measureCase = (bench: Bench, plan: Plan, one: Case, done: Done): Effect.Effect<ReadonlyArray<Figure>> =>
  Effect.gen(function*() {
    const missing = new Map<string, string>()
    const measured = new Map<string, ReadonlyArray<Measured>>()
    const copied = new Set<string>()
    done.set(one.id, measured)
    const entered = plan.systems.filter((system) => isTunedFor(one, system))
    for (const system of plan.systems) {
      const reason = one.skip?.(system) ?? system.unsupported?.[workloadOf(one)]
        ?? (entered.some(({ peer }) => peer === system.peer) ? undefined : "no variant of it takes part")
      if (reason !== undefined) missing.set(system.id, reason)
    }
    for (const system of entered) {
      const other = one.sameAs?.(system)
      const same = other === undefined ? undefined : done.get(other)?.get(system.id)
      if (missing.has(system.id) || same === undefined) continue
      copied.add(system.id)
      measured.set(system.id, same.map((each) => ({ ...each, workload: each.workload.replace(other!, one.id) })))
    }
    const rounds = Math.min(plan.rounds, one.roundsMax ?? plan.rounds)
    for (let round = 0; round < rounds; round++) {
      for (const system of rotated(entered, round + bench.sizes.seed)) {
        if (missing.has(system.id) || copied.has(system.id)) continue
        if (plan.quietly) yield* quiet
        const prefix = `${one.id} ${round + 1}/${rounds} ${system.id}:`
        const found = yield* measureOnce(bench, one, system)
        if (typeof found === "string") {
          missing.set(system.id, found)
          plan.onProgress(`${prefix} ${found.split("\n")[0]}`)
          bench.onOutput(`${prefix} ${found}\n`)
          continue
        }
        measured.set(system.id, [...(measured.get(system.id) ?? []), ...found])
        plan.onProgress(
          `${prefix} ${found.map(({ unit, value, workload }) => `${workload} ${shown(value)} ${unit}`).join(", ")}`
        )
      }
    }
    return figuresOf(one, measured, missing)
  })

const shown = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)))

/** Each variant takes part where it is tuned for it, so that a peer is seen at its best. */
const isTunedFor = (one: Case, system: Description): boolean => system.workloads.includes(workloadOf(one))

const withinMs = ({ withinS = withinSDefault }: Case, { id }: Description): number =>
  (id === oursId ? oursWithinS : withinS) * 1_000

/** Each goes first in turn, so that none profits from its place. */
export const rotated = <A>(list: ReadonlyArray<A>, by: number): ReadonlyArray<A> =>
  list.map((_, at) => list[(at + by) % list.length]!)

const measureOnce = (
  bench: Bench,
  one: Case,
  system: Description
): Effect.Effect<ReadonlyArray<Measured> | string> =>
  Effect.scoped(one.run(bench, system)).pipe(
    Effect.timeoutFail({
      duration: withinMs(one, system),
      onTimeout: () => new NotWithin({ ms: withinMs(one, system) })
    }),
    Effect.catchAllCause((cause) => {
      if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
      const error = Cause.squash(cause)
      if (error instanceof NotWithin) return Effect.succeed(error.message)
      return Effect.succeed(failedPrefix + (error instanceof Error ? error.message : String(error)))
    })
  )

/** The figures of a case, in the order in which it gives them. */
export const figuresOf = (
  one: Pick<Case, "id" | "title">,
  measured: ReadonlyMap<string, ReadonlyArray<Measured>>,
  missing: ReadonlyMap<string, string>
): ReadonlyArray<Figure> => {
  const every = [...measured.values()].flat()
  const names = [...new Set(every.map(({ workload }) => workload))]
  const reasons = Object.fromEntries(missing)
  if (names.length === 0) {
    return [{ workload: one.id, title: one.title, unit: "", better: "higher", all: {}, missing: reasons }]
  }
  return names.map((workload) => {
    const { better, unit } = every.find((each) => each.workload === workload)!
    const all: Record<string, Series> = {}
    for (const [id, list] of measured) {
      const own = list.filter((each) => each.workload === workload)
      const last = own.at(-1)
      if (last !== undefined) all[id] = { values: own.map(({ value }) => value), details: last.details }
    }
    return { workload, title: one.title, unit, better, all, missing: reasons }
  })
}

/** Part of the CPU that may be busy when a measurement begins. */
const busyMax = 0.15
const lookFor = "250 millis"
const quietWithin = "6 seconds"

const times = (): { readonly idle: number; readonly all: number } =>
  cpus().reduce(({ all, idle }, { times }) => ({
    idle: idle + times.idle,
    all: all + times.user + times.nice + times.sys + times.idle + times.irq
  }), { idle: 0, all: 0 })

/** Waits for the processes of the measurement before to be gone, and for others; not for ever. */
const quiet: Effect.Effect<void> = Effect.suspend(() => {
  const before = times()
  return Effect.delay(
    Effect.sync(() => {
      const after = times()
      return 1 - (after.idle - before.idle) / Math.max(1, after.all - before.all)
    }),
    lookFor
  )
}).pipe(
  Effect.repeat({ until: (busy) => busy < busyMax }),
  Effect.timeoutOption(quietWithin),
  Effect.asVoid
)
