/** What the command line may say, and one clear line for what it may not. */
import { Data, Either } from "effect"
import type { Scenario } from "./Scenario.js"

export class ArgumentInvalid extends Data.TaggedError("ArgumentInvalid")<{ readonly reason: string }> {
  override get message() {
    return `chaos: ${this.reason}`
  }
}

/** Those named, in the order of the list; without any, all. */
export const scenariosOf = (
  names: ReadonlyArray<string>,
  known: ReadonlyArray<Scenario>
): Either.Either<ReadonlyArray<Scenario>, ArgumentInvalid> => {
  const unknown = names.find((name) => !known.some((scenario) => scenario.name === name))
  if (unknown === undefined) {
    return Either.right(names.length === 0 ? known : known.filter(({ name }) => names.includes(name)))
  }
  // What the parser of flags does not know, it takes for a scenario.
  const reason = unknown.startsWith("-")
    ? `no flag ${unknown}, or its value is missing; see --help`
    : `no scenario "${unknown}"; there are ${known.map(({ name }) => name).join(", ")}`
  return Either.left(new ArgumentInvalid({ reason }))
}
