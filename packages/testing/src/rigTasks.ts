/** Tasks that cluster tests run. Queues are many, so that every node owns some. */
import * as ConcurrencyLimiter from "@orrery/core/ConcurrencyLimiter"
import * as RateLimiter from "@orrery/core/RateLimiter"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import * as Task from "@orrery/core/Task"
import { Schema } from "effect"

export const rigQueues: ReadonlyArray<string> = Array.from({ length: 12 }, (_, n) => `rig-${n}`)

const tick = (queue: string) =>
  Task.make(`tick-${queue}`, { payload: Schema.Struct({ n: Schema.Number }), success: Schema.Number, queue })

/** Ends at once. One task per queue. */
export const ticks = rigQueues.map(tick)

/** Takes `ms`; interruptible. Many attempts, so that only a bug ends it as failed. */
export const nap = Task.make("nap", {
  payload: Schema.Struct({ ms: Schema.Number }),
  success: Schema.Void,
  queue: "rig-naps",
  retry: RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
})

/** Tells the log when it begins and ends. At most two of a key at once. */
export const limited = Task.make("limited", {
  payload: Schema.Struct({ n: Schema.Number, key: Schema.String, ms: Schema.Number }),
  queue: "rig-limited",
  concurrency: { key: ({ key }) => key, limit: 2 },
  retry: RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
})

/** As `limited`; those of a key one after the other. */
export const inOrder = Task.make("in-order", {
  payload: Schema.Struct({ n: Schema.Number, key: Schema.String, ms: Schema.Number }),
  queue: "rig-limited",
  orderingKey: ({ key }) => key,
  retry: RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
})

/** As `limited`, without a limit; takes three slots. */
export const heavy = Task.make("heavy", {
  payload: Schema.Struct({ n: Schema.Number, key: Schema.String, ms: Schema.Number }),
  queue: "rig-slots",
  slots: 3,
  retry: RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
})

/** As `heavy`, of one slot. */
export const light = Task.make("light", {
  payload: Schema.Struct({ n: Schema.Number, key: Schema.String, ms: Schema.Number }),
  queue: "rig-slots",
  retry: RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
})

/** The first of a key is all of them. */
export const once = Task.make("once", {
  payload: Schema.Struct({ key: Schema.String, client: Schema.Number }),
  success: Schema.Number,
  queue: "rig-identity",
  idempotencyKey: ({ key }) => key,
  retry: RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
})

/** Takes `ms`. One of a key at a time, and none waits behind it. */
export const single = Task.make("single", {
  payload: Schema.Struct({ key: Schema.String, ms: Schema.Number }),
  queue: "rig-identity",
  unique: { key: ({ key }) => key },
  retry: RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
})

const again = RetryPolicy.fixed({ maxAttempts: 10, delay: 100, jitter: 0 })
const Spanned = Schema.Struct({ n: Schema.Number, key: Schema.String, ms: Schema.Number })

export const partner = RateLimiter.make("rig-partner", { limit: 100, per: "1 second" })
export const gpu = ConcurrencyLimiter.make("rig-gpu", { limit: 6, lease: "5 seconds" })

/** Tell the log when they begin and end. Of eight queues, and under one rate. */
export const spanned = Array.from(
  { length: 8 },
  (_, n) => Task.make(`spanned-${n}`, { payload: Spanned, queue: `rig-spanned-${n}`, limiters: partner, retry: again })
)

/** The same of four queues, under one limit of concurrency. */
export const permitted = Array.from(
  { length: 4 },
  (_, n) => Task.make(`permitted-${n}`, { payload: Spanned, queue: `rig-permitted-${n}`, limiters: gpu, retry: again })
)

/** No limit of its starts: its handlers wait, whatever process they are in. */
export const asked = RateLimiter.make("rig-asked", { limit: 10, per: "500 millis" })
/** Tells the log when it was let through. */
export const asking = Task.make("asking", { payload: Spanned, queue: "rig-asking", retry: again })

/** Of each of the two that follow. */
export const guardedRate = { limit: 5, perMs: 200 } as const
const guardedBy = (whenGone: "closed" | "open") =>
  Task.make(`guarded-${whenGone}`, {
    payload: Spanned,
    queue: `rig-guarded-${whenGone}`,
    limiters: RateLimiter.make(`rig-guarded-${whenGone}`, {
      limit: guardedRate.limit,
      per: guardedRate.perMs,
      whenGone
    }),
    retry: again
  })
export const guardedClosed = guardedBy("closed")
export const guardedOpen = guardedBy("open")
