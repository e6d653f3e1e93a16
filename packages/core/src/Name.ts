import { Schema } from "effect"

/** Longest task, queue, namespace, worker or key name, in characters. */
export const nameLengthMax = 200

export const namePattern = /^[A-Za-z0-9_.:/-]{1,200}$/

/**
 * A name users choose: of a task, a queue, a namespace, a worker.
 *
 * 1 to 200 of `A-Z a-z 0-9 _ . : / -`, so that it is safe in logs, URLs, SQL and entity ids as it is.
 */
export const Name = Schema.String.pipe(
  Schema.pattern(namePattern, {
    message: (issue) =>
      `a name is 1 to ${nameLengthMax} characters of A-Z a-z 0-9 _ . : / - , got ${describe(issue.actual)}`
  })
)

export const isName = (value: unknown): value is string => typeof value === "string" && namePattern.test(value)

const describe = (actual: unknown): string => {
  if (typeof actual !== "string") return typeof actual
  return actual.length > nameLengthMax
    ? `${actual.length} characters`
    : JSON.stringify(actual)
}
