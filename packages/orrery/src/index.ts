/** One import for applications: define tasks, choose a layer, provide it. */
export {
  cancelMany,
  ConcurrencyLimiter,
  DeadLetters,
  deleteMany,
  Queue,
  Queues,
  RateLimiter,
  RecurringSchedule,
  Retry,
  retryMany,
  RetryPolicy,
  Schedules,
  Signals,
  Task,
  Watch
} from "@orrery/core"
export { Attempt } from "@orrery/core/Handlers"
export * as PayloadCodec from "@orrery/core/PayloadCodec"
export { Runs } from "@orrery/core/Runs"
export { completeInTransaction } from "@orrery/store-pg/completeInTransaction"
export { enqueueInTransaction, enqueueManyInTransaction, withTransaction } from "@orrery/store-pg/enqueueInTransaction"
export * as Orrery from "./Orrery.js"
