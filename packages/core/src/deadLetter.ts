/** A run that failed or expired, and the run that is made of it anew. */
import { derivedRunId } from "./derivedRunId.js"
import { NotRedrivable } from "./Errors.js"
import { Effect } from "effect"
import type { RunId } from "./RunId.js"
import type { FinalRun } from "./RunReader.js"
import type { RunRequest } from "./RunRequest.js"
import type { RunState } from "./RunState.js"
import { versioned } from "./TaskName.js"

/** Final without a success, and not by anybody's wish. */
export const isRedrivable = (state: RunState): boolean => state === "failed" || state === "expired"

/** The id of its redrive: there is one. */
export const redriveId = (id: RunId, finishedAt: number): RunId => derivedRunId(finishedAt, `redrive\n${id}`)

/** The same request once more. Its id sorts by the end of the first run, so both are read together. */
export const redriveOf = ({ keys, policy, run }: FinalRun): Effect.Effect<RunRequest, NotRedrivable> =>
  isRedrivable(run.state)
    ? Effect.succeed({
      id: redriveId(run.id, run.finishedAt ?? run.createdAt),
      namespace: run.namespace,
      queue: run.queue,
      task: versioned(run.task, run.version),
      payload: run.payload,
      priority: run.priority,
      when: { _tag: "delay", ms: 0 },
      policy,
      keys,
      // It may be there already, and may even have ended.
      resend: true,
      origin: run.id
    })
    : new NotRedrivable({ runId: run.id, state: run.state })
