/** What an error of the driver means for a statement that may be sent again. */
import { SqlError } from "@effect/sql/SqlError"
import { StoreUnavailable } from "@orrery/core/Errors"
import pg from "pg"

/** The connection could not be made or prepared: whatever the server said, it was not about the statement. */
export class NotConnected extends Error {
  constructor(cause: unknown) {
    super("not connected", { cause })
  }
}

/**
 * - `lost`: the connection is useless and the statement may have happened, or may still happen
 * - `again`: the server rolled it back, and it may succeed later
 * - `exists`: the server rolled it back since a row with that key is there
 * - `refused`: the server rolled it back and would do so every time: the statement or its values are wrong
 */
export type Verdict = "lost" | "again" | "exists" | "refused"

/** Server is going down or coming up, or is a primary no more: another connection may reach a better one. */
const lostCodes = /^(08...|57P0.|25006)$/
/** Serialisation, deadlock, lock timeout, cancelled by `statement_timeout`, out of resources, disk or I/O trouble. */
const againCodes = /^(40...|55P03|57014|53...|58...)$/

const uniqueViolation = "23505"

export const verdictOf = (error: unknown): Verdict => {
  if (!(error instanceof pg.DatabaseError)) return "lost"
  const code = error.code ?? ""
  if (lostCodes.test(code)) return "lost"
  if (code === uniqueViolation) return "exists"
  return againCodes.test(code) ? "again" : "refused"
}

/** The error without its detail, which quotes values of the row: payloads do not belong in logs. */
export const withoutValues = (error: unknown): Error => {
  const cause = rootOf(error)
  if (cause instanceof pg.DatabaseError) {
    const where = cause.constraint === undefined ? "" : ` (${cause.constraint})`
    return new Error(`${cause.code ?? "?"} ${cause.message}${where}`)
  }
  if (!(cause instanceof Error)) return new Error(String(cause))
  // A failed dial to several addresses says nothing itself.
  return cause instanceof AggregateError && cause.message === ""
    ? new Error(cause.errors.map((each) => (each instanceof Error ? each.message : String(each))).join("; "))
    : new Error(cause.message)
}

/** The driver's own error. */
const rootOf = (error: unknown): unknown =>
  (error instanceof NotConnected || error instanceof SqlError) && error.cause !== undefined ? error.cause : error

export const unavailable = (operation: string) => (error: unknown): StoreUnavailable =>
  new StoreUnavailable({ operation, cause: withoutValues(error) })
