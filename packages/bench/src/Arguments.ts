/** What the command line of the benchmark may say, and one clear line for what it may not. */
import { Data, Either } from "effect"
import { quickPeers, type Registered, registered } from "./systems/index.js"
import type { Workload } from "./Workload.js"

/** An argument means nothing. */
export class ArgumentInvalid extends Data.TaggedError("ArgumentInvalid")<{ readonly reason: string }> {
  override get message() {
    return `bench: ${this.reason}`
  }
}

/** Those given, in the order of the list; without any, `otherwise`. */
export const workloadsOf = (
  ids: ReadonlyArray<string>,
  known: ReadonlyArray<Workload>,
  otherwise: ReadonlyArray<string>
): Either.Either<ReadonlyArray<Workload>, ArgumentInvalid> => {
  const wanted = ids.length === 0 ? otherwise : ids
  const unknown = wanted.find((id) => !known.some((workload) => isSame(workload.id, id)))
  if (unknown === undefined) return Either.right(known.filter(({ id }) => wanted.some((each) => isSame(id, each))))
  // What the parser of flags does not know, it takes for a workload.
  const reason = unknown.startsWith("-")
    ? `no flag ${unknown}, or its value is missing; see --help`
    : `no workload "${unknown}"; there are ${known.map(({ id }) => id).join(", ")}`
  return Either.left(new ArgumentInvalid({ reason }))
}

const isSame = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase()

/** `all`, `none`, ids like `graphile:batch`, or `graphile` for all its variants. Ours always takes part. */
export const systemsOf = (
  peers: string | undefined,
  isQuick: boolean
): Either.Either<ReadonlyArray<Registered>, ArgumentInvalid> => {
  const given = peers ?? (isQuick ? quickPeers.join(",") : "all")
  const names = given === "none" ? [] : given.split(",").map((name) => name.trim())
  const isOf = (name: string) => ({ id, peer }: Registered) => name === "all" || id === name || peer === name
  const unknown = names.find((name) => !registered.some(isOf(name)))
  if (unknown !== undefined) {
    const ids = registered.map(({ id }) => id).join(", ")
    return Either.left(new ArgumentInvalid({ reason: `no system "${unknown}"; there are all, none, ${ids}` }))
  }
  return Either.right(registered.filter((each) => each.peer === "orrery" || names.some((name) => isOf(name)(each))))
}
