/** An explanation in words. */
import type { Explanation, Reason } from "@orrery/core/Explanation"
import type { RunFailure } from "@orrery/core/Run"

const time = (ms: number) => new Date(ms).toISOString()
const seconds = (ms: number) => `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`
const limitText = (limit: { readonly name: string; readonly key: string } | null, spans?: "used" | "unavailable") =>
  limit === null
    ? "of the queue"
    : spans === undefined
    ? `${limit.name} of ${limit.key}`
    : `${limit.name} over all queues`
const goneText = (limit: { readonly name: string } | null) =>
  `the limit ${limit?.name} over all queues cannot be asked for: nothing starts that needs it`
const errorText = (error: RunFailure | null) =>
  error === null ? "" : ` after ${error.kind} ${error.tag}: ${error.message}`

export const reasonText = (reason: Reason): string => {
  switch (reason._tag) {
    case "WaitingForTime":
      return `waits for its time, ${time(reason.until)}`
    case "Backoff":
      return `is tried again at ${time(reason.until)}${errorText(reason.lastError)}`
    case "Paused": {
      const what = reason.key === undefined ? "the queue" : `${reason.key.kind} key ${reason.key.key}`
      return `${what} is paused by ${reason.by} since ${time(reason.since)}${
        reason.why === "" ? "" : `: ${reason.why}`
      }`
    }
    case "NoWorker":
      return reason.slots === undefined
        ? `no worker is attached that can run ${reason.task}`
        : `it takes ${reason.slots} slots, and the largest worker that can run ${reason.task} has ${reason.most}`
    case "WaitsForOrder": {
      const until = reason.until === null ? "" : ` until ${time(reason.until)}`
      return `must follow ${reason.behind} of ordering key ${reason.key}, which is ${reason.state}${until}${
        errorText(reason.lastError)
      }`
    }
    case "Blocked":
      if (reason.spans === "unavailable") return goneText(reason.limit)
      return `the limit ${limitText(reason.limit, reason.spans)} is full: ${reason.running} of ${reason.most} run${
        reason.spans === undefined ? "" : " here"
      }${reason.holders.map((id) => `\n    ${id}`).join("")}`
    case "RateLimited":
      if (reason.spans === "unavailable") return goneText(reason.limit)
      return `the rate ${limitText(reason.limit, reason.spans)} is used up${
        reason.until === null ? "" : ` until ${time(reason.until)}`
      }`
    case "Behind": {
      const { eta, isAtLeast, runs } = reason
      const place = runs === 0 && !isAtLeast ? "is next" : `${runs}${isAtLeast ? " or more" : ""} come first`
      return eta === null
        ? place
        : `${place}; starts in about ${seconds(eta.p50Ms)}, nine times of ten within ${seconds(eta.p90Ms)}`
    }
    case "InInbox":
      return "its queue has yet to take it out of the inbox"
    case "BeingWritten":
      return "a change of it is being written"
    case "Running":
      return `attempt ${reason.attempt} runs at ${reason.worker} since ${time(reason.since)}${
        reason.isCancelRequested ? "; it is being cancelled" : ""
      }`
    case "Final":
      return reason.at === null ? reason.state : `${reason.state} at ${time(reason.at)}`
  }
}

export const explanationText = ({ also, holdsUp, reason, runId, spent, state }: Explanation): string =>
  [
    `${runId}  ${state}`,
    `  ${reasonText(reason)}`,
    ...also.map((each) => `  also: ${reasonText(each)}`),
    ...holdsUp === undefined ? [] : [
      `  holds up ${holdsUp.runs}${holdsUp.isAtLeast ? " or more" : ""} of ordering key ${holdsUp.key}${
        holdsUp.first.map((id) => `\n    ${id}`).join("")
      }`
    ],
    `  spent: ${
      [
        ["in earlier attempts", spent.earlierMs],
        ["waiting for its time", spent.waitingForTimeMs],
        ["in line", spent.inLineMs],
        ["running", spent.runningMs]
      ].flatMap(([what, ms]) => Number(ms) > 0 ? [`${seconds(Number(ms))} ${what}`] : []).join(", ") || "nothing yet"
    }`
  ].join("\n")
