import * as RetryPolicy from "@orrery/core/RetryPolicy"
import * as Task from "@orrery/core/Task"
import { Schema } from "effect"

/** The file is not there, or may not be read. Trying again would not help. */
export class FileUnreadable extends Schema.TaggedError<FileUnreadable>()("FileUnreadable", {
  path: Schema.String,
  reason: Schema.String
}) {}

export const digestFile = Task.make("digest-file", {
  payload: Schema.Struct({ path: Schema.String }),
  success: Schema.Struct({ sha256: Schema.String, bytes: Schema.Number }),
  error: FileUnreadable,
  queue: "digest",
  retry: RetryPolicy.exponential({ base: "100 millis", max: "1 second", maxAttempts: 5 }),
  timeout: "1 minute",
  isRetryable: () => false
})
