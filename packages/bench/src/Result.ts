/** One run of the benchmark, as it is stored: what was measured, where, with which settings. */
import { Effect } from "effect"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Settings } from "./BenchPostgres.js"
import type { Description } from "./Calls.js"
import { type Figure, type Verdict, verdict } from "./Figure.js"
import type { Machine } from "./machine.js"
import type { Sizes } from "./Stage.js"
import { workloadOf } from "./Workload.js"

export interface Result {
  /** When it began, ISO 8601. */
  readonly at: string
  /** Arguments of `npm run bench --`, to repeat it. */
  readonly command: string
  readonly sizes: Sizes
  readonly rounds: number
  readonly machine: Machine
  readonly postgres: Settings
  /** Version; absent when no system needed it. */
  readonly redis?: string
  readonly systems: ReadonlyArray<Description>
  readonly figures: ReadonlyArray<Figure>
}

/** Ratios that `--check` compares with. */
export interface Recorded {
  readonly at: string
  /** Absent: 1. */
  readonly scale?: number
  readonly ratios: Readonly<Record<string, number>>
}

const recordedFile = "recorded.json"
const resultName = /^\d{4}-\d{2}-\d{2}-\d+\.json$/

/** In the order in which they were measured. */
export const readAll = (folder: string): ReadonlyArray<Result> => {
  mkdirSync(folder, { recursive: true })
  return readdirSync(folder)
    .filter((name) => resultName.test(name))
    .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Result)
    .sort((a, b) => a.at < b.at ? -1 : 1)
}

/** As `<date>-<n>.json`, n counting the runs of the day. A quick run of full size also becomes what `--check` compares with. */
export const save = (folder: string, result: Result): string => {
  mkdirSync(folder, { recursive: true })
  const day = result.at.slice(0, 10)
  const ofDay = readdirSync(folder).filter((name) => name.startsWith(day))
  const n = 1 + ofDay.reduce((most, name) => Math.max(most, Number(/-(\d+)\.json$/.exec(name)?.[1] ?? 0)), 0)
  const file = join(folder, `${day}-${n}.json`)
  writeFileSync(file, `${JSON.stringify(result, roundedNumbers)}\n`)
  if (result.sizes.quick && result.sizes.scale === 1) {
    writeFileSync(join(folder, recordedFile), `${JSON.stringify(recordedOf(result), undefined, 2)}\n`)
  }
  return file
}

const roundedNumbers = (_key: string, value: unknown): unknown =>
  typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value

export const recordedOf = (result: Result): Recorded => ({
  at: result.at,
  ratios: Object.fromEntries(
    result.figures.map(verdict).flatMap(({ ratio, workload }) => ratio === null ? [] : [[workload, ratio] as const])
  )
})

/** `undefined` when no quick run has been recorded. */
export const readRecorded = (folder: string): Recorded | undefined => {
  try {
    return JSON.parse(readFileSync(join(folder, recordedFile), "utf8")) as Recorded
  } catch {
    return undefined
  }
}

/** A noisy machine moves ratios less than rates, but it does move them. */
const checkShare = 2 / 3

export interface Checked {
  readonly workload: string
  readonly recorded: number
  /** `null`: not measured this time. */
  readonly now: number | null
  readonly holds: boolean
}

/** Those of the workloads that are measured. */
export const recordedFor = ({ ratios, ...of }: Recorded, workloads: ReadonlyArray<string>): Recorded => ({
  ...of,
  ratios: Object.fromEntries(Object.entries(ratios).filter(([id]) => workloads.includes(workloadOf({ id }))))
})

/** Every recorded ratio must be there again, at no less than two thirds. */
export const check = (recorded: Recorded, verdicts: ReadonlyArray<Verdict>): ReadonlyArray<Checked> =>
  Object.entries(recorded.ratios).map(([workload, before]) => {
    const now = verdicts.find((each) => each.workload === workload)?.ratio ?? null
    return { workload, recorded: before, now, holds: now !== null && now >= before * checkShare }
  })

/** A noisy minute takes away as much as a defect: what is lost is measured again, so often at most, and found if it ever holds. */
const againMax = 2

/** `measure`: those that are lost, once more. */
export const checkAgain = <E, R>(
  recorded: Recorded,
  verdicts: ReadonlyArray<Verdict>,
  measure: (lost: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Verdict>, E, R>
): Effect.Effect<ReadonlyArray<Checked>, E, R> =>
  Effect.gen(function*() {
    let checked = check(recorded, verdicts)
    for (let n = 0; n < againMax; n++) {
      const lost = checked.filter(({ holds }) => !holds).map(({ workload }) => workload)
      if (lost.length === 0) break
      const again = check(recorded, yield* measure(lost))
      checked = checked.map((one) => again.find(({ holds, workload }) => holds && workload === one.workload) ?? one)
    }
    return checked
  })
