/**
 * Clients under fire: one producer per queue that asks for runs and waits until they are acknowledged, sends the same
 * request again for as long as it takes, cancels some, and looks whether it can see what it was told is there. What it asks for is
 * decided by the seed alone. All of it is written to the history of the client.
 */
import type { RunRequest } from "@orrery/core/RunRequest"
import { Runs } from "@orrery/core/Runs"
import { Cause, Context, Effect, Fiber, type Scope } from "effect"
import { queues, steps } from "./chaosTasks.js"
import { monotonicMs, type Writer } from "./HistoryFile.js"
import { until } from "./patience.js"
import type { Random } from "@orrery/testing/Random"

export interface Load {
  /** Runs acknowledged until now. */
  readonly acknowledged: () => number
  /** Longest time between two answers of any queue since the last call, ms. */
  readonly longestGap: () => number
  /** The same of each queue, since this or `longestGap` was called last. */
  readonly gaps: () => ReadonlyMap<string, number>
  /** Completes when every queue has been answered again from now on. */
  readonly allServed: Effect.Effect<void>
  /** Times a request failed and was sent again, by the name of the failure. */
  readonly failures: ReadonlyMap<string, number>
  /** Asks for no more; answers when nobody waits any more. */
  readonly stop: Effect.Effect<void>
}

export interface LoadOptions {
  readonly client: Context.Context<Runs>
  readonly history: Writer
  readonly random: Random
  /** Clock of the database minus the monotonic clock, ms. */
  readonly clockOffset: number
  /** Pause of a producer between an answer and the next request, ms. */
  readonly pauseMs: number
  /** Times as many runs in each request, while no more than `waitingMax` wait. At 1 nobody looks how many that are. */
  readonly times: number
  /** Runs that have not ended. */
  readonly waiting: Effect.Effect<number>
}

/** Of what a producer asks for. */
const shares = {
  timed: 0.1,
  failing: 0.1,
  failingTwice: 0.02,
  slow: 0.1,
  quick: 0.3,
  cancelled: 0.03,
  read: 0.1,
  again: 0.03
}
const requestsAtOnceMax = 3
/** What waits has to end within a minute after the last fault: beyond it, producers ask for no more than at `times` 1. */
const waitingMax = 4_000
const lookEvery = "500 millis"
const delayMs = { min: 100, max: 3_000 }
const quickMs = { min: 1, max: 30 }
const slowMs = { min: 100, max: 500 }
/** After a failure that the client library did not ride out itself. */
const retryAfter = "100 millis"
/** A producer that waits for an answer is given this long at the end. */
const stopWithin = "60 seconds"

interface Producer {
  readonly at: number
  readonly random: Random
  readonly runs: Runs["Type"]
  readonly options: LoadOptions
  readonly failures: Map<string, number>
  /** How many times as many runs to ask for now. */
  readonly times: () => number
  /** Monotonic, ms. */
  lastAnswer: number
  /** Longest time between two answers, ms. */
  gap: number
  /** What it does beside: a question or a cancel that takes long must not look like a queue that takes no runs. */
  beside: Fiber.Fiber<void> | undefined
  answers: number
  acknowledged: number
}

/** Producers run until `stop`, at the latest until the scope closes. */
export const start = (options: LoadOptions): Effect.Effect<Load, never, Scope.Scope> =>
  Effect.gen(function*() {
    const failures = new Map<string, number>()
    const runs = Context.get(options.client, Runs)
    let times = options.times
    if (options.times > 1) {
      yield* options.waiting.pipe(
        Effect.map((waiting) => void (times = waiting > waitingMax ? 1 : options.times)),
        Effect.zipRight(Effect.sleep(lookEvery)),
        Effect.forever,
        Effect.forkScoped
      )
    }
    const producers = queues.map((_, at): Producer => ({
      at,
      random: options.random.fork(),
      runs,
      options,
      failures,
      times: () => times,
      lastAnswer: performance.now(),
      gap: 0,
      beside: undefined,
      answers: 0,
      acknowledged: 0
    }))
    let isStopped = false
    const answered = (producer: Producer): void => {
      const now = performance.now()
      producer.gap = Math.max(producer.gap, now - producer.lastAnswer)
      producer.lastAnswer = now
      producer.answers += 1
    }
    const gaps = (): ReadonlyMap<string, number> => {
      const now = performance.now()
      return new Map(producers.map((each) => {
        const gap = Math.max(each.gap, now - each.lastAnswer)
        each.gap = 0
        return [queues[each.at]!, gap]
      }))
    }
    const fibers = yield* Effect.forEach(producers, (producer) =>
      round(producer, () => answered(producer)).pipe(
        Effect.zipRight(Effect.sleep(options.pauseMs)),
        Effect.repeat({ until: () => isStopped }),
        Effect.tapErrorCause((cause) => Effect.logError("a producer has ended", Cause.pretty(cause))),
        Effect.forkScoped
      ))
    return {
      acknowledged: () => producers.reduce((sum, each) => sum + each.acknowledged, 0),
      longestGap: () => Math.max(...gaps().values()),
      gaps,
      allServed: Effect.suspend(() => {
        const before = producers.map((each) => each.answers)
        return until("every queue is served", () => producers.every(({ answers }, at) => answers > before[at]! + 1))
      }),
      failures,
      stop: Effect.suspend(() => {
        isStopped = true
        const all = () => [...fibers, ...producers.flatMap(({ beside }) => beside ?? [])]
        const ended = Effect.suspend(() =>
          Effect.forEach(all(), Fiber.await, { concurrency: 2 * producers.length, discard: true })
        )
        return Effect.timeoutOption(Effect.zipRight(ended, ended), stopWithin).pipe(
          Effect.zipRight(Effect.suspend(() => Fiber.interruptAll(all())))
        )
      })
    }
  })

/** Asks for a few runs until they are acknowledged, and may do more with them: one thing at a time, beside what it asks for. */
const round = (producer: Producer, answered: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { options: { clockOffset, history }, random } = producer
    const count = random.integer(1, requestsAtOnceMax) * producer.times()
    const requests = yield* Effect.forEach(numbers(count), () => makeRequest(producer))
    for (const { id, queue, when } of requests) {
      const dueAt = when.ms === 0 ? 0 : monotonicMs() + clockOffset + when.ms
      history.write({ _tag: "asked", run: id, queue, dueAt })
    }
    yield* untilAcknowledged(producer, requests)
    producer.acknowledged += requests.length
    answered()
    if (random.chance(shares.again)) {
      yield* untilAcknowledged(producer, requests.map(asResend))
      answered()
    }
    const { id } = random.pick(requests)
    const isRead = random.chance(shares.read)
    const isCancelled = random.chance(shares.cancelled)
    if (!isRead && !isCancelled) return
    const before = producer.beside
    producer.beside = yield* Effect.forkScoped(
      (before === undefined ? Effect.void : Effect.asVoid(Fiber.await(before))).pipe(
        Effect.zipRight(isRead ? look(producer, id) : Effect.void),
        Effect.zipRight(isCancelled ? Effect.ignore(producer.runs.cancel(id)) : Effect.void)
      )
    )
  })

const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, at) => at)
const asResend = (request: RunRequest): RunRequest => ({ ...request, resend: true })

const makeRequest = ({ at, random }: Producer) => {
  const kind = random.next()
  const ms = kind < shares.slow
    ? random.integer(slowMs.min, slowMs.max)
    : kind < shares.slow + shares.quick
    ? random.integer(quickMs.min, quickMs.max)
    : 0
  const failures = random.chance(shares.failing) ? 1 : random.chance(shares.failingTwice) ? 2 : 0
  const delay = random.chance(shares.timed) ? { delay: random.integer(delayMs.min, delayMs.max) } : {}
  return Effect.orDie(steps[at]!.request({ ms, failures }, delay))
}

const untilAcknowledged = (
  producer: Producer,
  requests: ReadonlyArray<RunRequest>
): Effect.Effect<void> =>
  producer.runs.enqueueMany(requests).pipe(
    Effect.zipRight(Effect.sync(() => {
      for (const { id } of requests) producer.options.history.write({ _tag: "acknowledged", run: id })
    })),
    Effect.catchAll((error) =>
      Effect.suspend(() => {
        producer.failures.set(error._tag, (producer.failures.get(error._tag) ?? 0) + 1)
        return Effect.zipRight(Effect.sleep(retryAfter), untilAcknowledged(producer, requests.map(asResend)))
      })
    )
  )

const look = ({ options: { history }, runs }: Producer, id: RunRequest["id"]) =>
  Effect.suspend(() => {
    const askedAt = monotonicMs()
    return runs.get(id).pipe(
      Effect.matchEffect({
        onSuccess: () => Effect.succeed(true),
        onFailure: (error) => error._tag === "RunNotFound" ? Effect.succeed(false) : Effect.fail(error)
      }),
      Effect.tap((found) => Effect.sync(() => history.write({ _tag: "read", run: id, askedAt, found }))),
      Effect.ignore
    )
  })
