/** A run that failed or expired, and the run that is made of it anew. */
import { derivedRunId } from "./derivedRunId.js"
import { NotRedrivable } from "./Errors.js"
import { Effect } from "effect"
import type { RunId } from "./RunId.js"
import type { FinalRun } from "./RunReader.js"
import type { RunRequest } from "./RunRequest.js"
import type { RunState } from "./RunState.js"
import { isBoundToRun } from "./Sealed.js"
import { versioned } from "./TaskName.js"

/** Final without a success, and not by anybody's wish. */
export const isRedrivable = (state: RunState): boolean => state === "failed" || state === "expired"

/** The id of its redrive: there is one. */
export const redriveId = (id: RunId, finishedAt: number): RunId => derivedRunId(finishedAt, `redrive\n${id}`)

const encrypted = "its payload is encrypted for it alone; a client with the key has to ask"

/**
 * The same request once more. Its id sorts by the end of the first run, so both are read together. `payload`: the same,
 * encoded for the new run.
 */
export const redriveOf = (
  { keys, policy, run }: FinalRun,
  payload = run.payload
): Effect.Effect<RunRequest, NotRedrivable> => {
  if (!isRedrivable(run.state)) return new NotRedrivable({ runId: run.id, state: run.state })
  return isBoundToRun(payload) && payload === run.payload
    ? new NotRedrivable({ runId: run.id, state: run.state, reason: encrypted })
    : Effect.succeed({
      id: redriveId(run.id, run.finishedAt ?? run.createdAt),
      namespace: run.namespace,
      queue: run.queue,
      task: versioned(run.task, run.version),
      payload,
      priority: run.priority,
      when: { _tag: "delay", ms: 0 },
      policy,
      keys,
      // It may be there already, and may even have ended.
      resend: true,
      origin: run.id
    })
}
