/**
 * How often what is hard for the system came about in a history. A simulator that is fast because little happens in its
 * histories proves little: two versions of it are compared by these, per thousand histories.
 */
import type { HistoryEvent } from "../history/HistoryEvent.js"

export const coverageNames = [
  /** A partition got a new epoch. */
  "takeOvers",
  "nodeCrashes",
  "workerCrashes",
  /** A crash at a named point around a commit. */
  "failpoints",
  /** A commit of an owner that had been replaced. */
  "fencedCommits",
  /** A question to the store without an answer, whether it was carried out or not. */
  "unanswered",
  /** A question to the store that was carried out, and its answer lost. */
  "lostAnswers",
  /** A worker's connection to a node that broke. */
  "brokenConnections",
  /** A client that had to ask again. */
  "resent",
  /** A handler that was begun for a run that had been begun before. */
  "restarts",
  /** A handler that was interrupted. */
  "interrupted",
  /** A commit that makes a run wait for its next attempt. */
  "retries",
  "cancelled",
  /** An attempt that goes on from a checkpoint of an earlier one. */
  "resumed",
  /** A run that came out of the inbox. */
  "drained",
  /** A record of ticks of a schedule. */
  "ticks",
  /** An end of an attempt that an owner took: what all the rest is about. */
  "accepted"
] as const
export type CoverageName = typeof coverageNames[number]
export type Coverage = { [Name in CoverageName]: number }

export const none = (): Coverage => Object.fromEntries(coverageNames.map((name) => [name, 0])) as Coverage

export const add = (sum: Coverage, more: Coverage): void => {
  for (const name of coverageNames) sum[name] += more[name]
}

/** What an event of the history says of it. */
export const nameOf = (event: HistoryEvent, isFirst: (run: string) => boolean): CoverageName | undefined => {
  switch (event._tag) {
    case "started":
      return isFirst(event.run) ? undefined : "restarts"
    case "ended":
      return event.outcome === "interrupted" ? "interrupted" : undefined
    case "accepted":
      return "accepted"
    case "loaded":
      return event.value === null ? undefined : "resumed"
    case "ticked":
      return "ticks"
    case "committed":
      return event.to === "retrying" ? "retries" : event.to === "cancelled" ? "cancelled" : undefined
    default:
      return undefined
  }
}
