/** One import for applications: define tasks, choose a layer, provide it. */
export {
  ConcurrencyLimiter,
  Queue,
  Queues,
  RateLimiter,
  RecurringSchedule,
  Retry,
  RetryPolicy,
  Schedules,
  Signals,
  Task,
  Watch
} from "@orrery/core"
export { Attempt } from "@orrery/core/Handlers"
export * as PayloadCodec from "@orrery/core/PayloadCodec"
export { Runs } from "@orrery/core/Runs"
export * as Orrery from "./Orrery.js"
