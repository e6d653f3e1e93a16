/**
 * Dead letters: runs that failed or expired. Looks through them, and makes many of them anew with care: a few first, at a rate,
 * and no further when these fail too.
 *
 * A redrive is a loop of its caller and ends with it; what was made stays made. Asked again it makes none twice, so it goes on where
 * it was.
 */
import { Clock, Duration, Effect, Fiber, Option, Stream } from "effect"
import type { ClusterUnavailable, RedriveError } from "./Errors.js"
import { InvalidRequest } from "./Errors.js"
import type { Run } from "./Run.js"
import type { RunId } from "./RunId.js"
import { type FinalFilter, finalRuns } from "./finalRuns.js"
import { Runs } from "./Runs.js"

export interface DeadLetterFilter extends FinalFilter {
  /** Default "failed". */
  readonly state?: "failed" | "expired"
}

export interface RedriveOptions {
  readonly filter: DeadLetterFilter
  /** Counts them, and makes none. Default false. */
  readonly dryRun?: boolean
  /** At most so many, newest first: 1 to 1,000,000. Default 10,000. */
  readonly limit?: number
  /** 0.1 to 1,000. Default 50. */
  readonly perSecond?: number
  /** So many first, 0 to 1,000; the others when all of these are final. Default 0. */
  readonly canary?: number
  /** How long the canaries may take. Default 10 min. */
  readonly canaryTimeout?: Duration.DurationInput
  /** Stops when more than this share of those that have ended did not succeed, 0 to 1. Default 0.5; 1: never. */
  readonly failureRatioMax?: number
}

export interface RedriveReport {
  /** Dead letters that were looked at and fit the filter. */
  readonly matched: number
  /** Runs made. */
  readonly redriven: number
  /** Made before, by an earlier redrive: their new runs are not touched. */
  readonly already: number
  /** Of those made, as far as they have ended by now: while many run at once, a sample. */
  readonly succeeded: number
  readonly failed: number
  /** Why it ended before all were made. */
  readonly stopped: "canaries failed" | "canaries not final in time" | "too many failed" | "limit" | null
}

/** Redriven runs whose ends are waited for at once. */
const watchedMax = 200
/** Ends that must be known before a share of them says something, beyond the canaries. */
const sampleMin = 10

/** Newest first. Reads page by page as it is consumed; a filter that few fit makes it read many. */
export const stream = (
  { state = "failed", ...filter }: DeadLetterFilter
): Stream.Stream<Run, ClusterUnavailable, Runs> => finalRuns(filter, state)

export interface Group {
  readonly fingerprint: string
  readonly task: string
  readonly kind: string
  readonly tag: string
  /** Of the newest. */
  readonly message: string
  readonly count: number
  readonly newest: RunId
}

/** What the newest `limit` dead letters died of, most frequent first. */
export const groups = (
  filter: DeadLetterFilter,
  limit: number
): Effect.Effect<ReadonlyArray<Group>, ClusterUnavailable, Runs> =>
  Effect.map(
    Stream.runFold(Stream.take(stream(filter), limit), new Map<string, Group>(), (all, run) => {
      const { fingerprint = "", kind = "failure", message = "", tag = "" } = run.failure ?? {}
      const key = fingerprint === "" ? `${run.task} ${kind} ${tag}` : fingerprint
      const known = all.get(key)
      const first = { fingerprint, task: run.task, kind, tag, message, newest: run.id }
      return all.set(key, { ...known ?? first, count: (known?.count ?? 0) + 1 })
    }),
    (all) => [...all.values()].sort((a, b) => b.count - a.count)
  )

interface Terms {
  readonly limit: number
  readonly pauseMs: number
  readonly canary: number
  readonly canaryTimeout: Duration.Duration
  readonly failureRatioMax: number
}

const termsOf = (options: RedriveOptions): Effect.Effect<Terms, InvalidRequest> => {
  const { canary = 0, canaryTimeout = "10 minutes", failureRatioMax = 0.5, limit = 10_000, perSecond = 50 } = options
  const timeout = Option.getOrUndefined(Duration.decodeUnknown(canaryTimeout))
  const bounds: ReadonlyArray<readonly [field: string, value: number, min: number, max: number, isWhole: boolean]> = [
    ["limit", limit, 1, 1_000_000, true],
    ["perSecond", perSecond, 0.1, 1_000, false],
    ["canary", canary, 0, 1_000, true],
    ["failureRatioMax", failureRatioMax, 0, 1, false]
  ]
  for (const [field, value, min, max, isWhole] of bounds) {
    if (value >= min && value <= max && (!isWhole || Number.isInteger(value))) continue
    return new InvalidRequest({ field, limit: `${min} to ${max}`, actual: String(value) })
  }
  if (timeout === undefined) {
    return new InvalidRequest({ field: "canaryTimeout", limit: "a duration", actual: String(canaryTimeout) })
  }
  return Effect.succeed({ limit, pauseMs: 1_000 / perSecond, canary, canaryTimeout: timeout, failureRatioMax })
}

/** Mutable while it goes. */
interface Progress {
  matched: number
  redriven: number
  already: number
  succeeded: number
  failed: number
  stopped: RedriveReport["stopped"]
}

/**
 * Makes dead letters anew. Fails with the first error that is not about one run (that one has been dropped meanwhile); it may be
 * asked again then.
 */
export const redrive = (
  options: RedriveOptions
): Effect.Effect<RedriveReport, RedriveError | InvalidRequest, Runs> =>
  Effect.gen(function*() {
    const terms = yield* termsOf(options)
    const runs = yield* Runs
    const progress: Progress = { matched: 0, redriven: 0, already: 0, succeeded: 0, failed: 0, stopped: null }
    const watched = new Set<Fiber.RuntimeFiber<void>>()
    const watch = (id: RunId) =>
      Effect.gen(function*() {
        const fiber = yield* runs.awaitFinal(id).pipe(
          Effect.map((run) => void (run.state === "succeeded" ? progress.succeeded++ : progress.failed++)),
          // Its end is not known: it does not count.
          Effect.ignore,
          Effect.forkScoped
        )
        watched.add(fiber)
        fiber.addObserver(() => watched.delete(fiber))
      })
    const startedAt = yield* Clock.currentTimeMillis
    const one = (run: Run) =>
      Effect.gen(function*() {
        if (progress.matched >= terms.limit) return stop(progress, "limit")
        progress.matched += 1
        if (options.dryRun === true) return true
        const due = startedAt + progress.redriven * terms.pauseMs - (yield* Clock.currentTimeMillis)
        if (due > 0) yield* Effect.sleep(due)
        const isCanary = progress.redriven < terms.canary
        const made = yield* runs.redrive(run.id).pipe(
          Effect.catchTag("RunNotFound", "NotRedrivable", () => Effect.succeed(undefined))
        )
        if (made?.isNew !== true) {
          if (made !== undefined) progress.already += 1
          return true
        }
        progress.redriven += 1
        if (isCanary || watched.size < watchedMax) yield* watch(made.id)
        if (isCanary && progress.redriven === terms.canary) return yield* canariesPass(terms, progress, watched)
        const isBad = ended(progress) >= sampleMin && ratio(progress) > terms.failureRatioMax
        return isBad ? stop(progress, "too many failed") : true
      })
    yield* Stream.runForEachWhile(stream(options.filter), one)
    return { ...progress }
  }).pipe(Effect.scoped)

const stop = (progress: Progress, why: NonNullable<RedriveReport["stopped"]>): false => {
  progress.stopped = why
  return false
}
const ended = ({ failed, succeeded }: Progress): number => failed + succeeded
const ratio = (progress: Progress): number => progress.failed / ended(progress)

const canariesPass = (
  terms: Terms,
  progress: Progress,
  watched: ReadonlySet<Fiber.RuntimeFiber<void>>
): Effect.Effect<boolean> =>
  Fiber.awaitAll([...watched]).pipe(
    Effect.timeoutOption(terms.canaryTimeout),
    Effect.map((end) => {
      if (Option.isNone(end)) return stop(progress, "canaries not final in time")
      return ended(progress) > 0 && ratio(progress) > terms.failureRatioMax ? stop(progress, "canaries failed") : true
    })
  )
