/** One queue actor of the partition `name`, with a worker and a journal that can be held back. Over the memory store. */
import { fromSubmit, Journal, type JournalBatch } from "@orrery/core/Journal"
import type { Outcome } from "@orrery/core/Run"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { defaultPolicy, type RunRequest } from "@orrery/core/RunRequest"
import type { Assignment, AttemptRef } from "@orrery/core/WorkerProtocol"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import * as Residents from "../src/Residents.js"

export const name = { namespace: "default", queue: "q", partition: 0 }

/** Of task `t`, due at once. */
export const request = (fields: Partial<RunRequest> = {}): RunRequest => ({
  id: unsafeMakeRunId(1_700_000_000_000),
  namespace: name.namespace,
  queue: name.queue,
  task: "t",
  payload: "1",
  priority: 5,
  when: { _tag: "delay", ms: 0 },
  policy: JSON.stringify(defaultPolicy),
  keys: null,
  resend: false,
  ...fields
})

export const until = (holds: () => boolean) =>
  Effect.sync(holds).pipe(
    Effect.tap((held) => held ? Effect.void : Effect.sleep("1 millis")),
    Effect.repeat({ until: (held) => held }),
    Effect.timeout("10 seconds")
  )

/** Residents of a node, whose actors stop with the scope. */
export const makeResidents = (options: Partial<Residents.ResidentsOptions> = {}) =>
  Residents.make({
    nodeId: "node",
    windowRunsMax: 100,
    windowBytesMax: 1e6,
    mayTakeOver: () => true,
    ...options
  })

/** A node that has taken the partition over. */
export const startNode = (options: Partial<Residents.ResidentsOptions> = {}) =>
  Effect.gen(function*() {
    const residents = yield* makeResidents(options)
    yield* residents.host(name, () => true)
    const actor = yield* residents.await(name, 5_000)
    assert(actor)
    return { actor, residents }
  })

/** A worker of task `t`. `assigned`: all it has been given. */
export const attach = (residents: Residents.Residents["Type"], credit = 10) => {
  const assigned: Array<Assignment> = []
  const session = residents.hub.attach({ workerId: "w", tasks: ["t"], credit }, (message) => {
    if (message._tag === "assign") assigned.push(...message.assignments)
  }, () => undefined)
  assert(session !== "full")
  return { assigned, session }
}

export const refOf = ({ attempt, lease, partitionId, runId }: AttemptRef): AttemptRef => ({
  attempt,
  lease,
  partitionId,
  runId
})

export const reportOf = (attempt: AttemptRef, outcome: Outcome) => ({ ...refOf(attempt), outcome })

export const success: Outcome = { _tag: "success", result: "1" }
export const failure: Outcome = {
  _tag: "failure",
  failure: { kind: "defect", tag: "E", message: "" },
  retryable: true
}

/** The journal, with batches that wait until they are let go. Those held when the scope closes go then. */
export const heldBack = (holds: (batch: JournalBatch) => boolean) =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const submitted: Array<JournalBatch> = []
    const gate = yield* Effect.makeLatch(false)
    const held = fromSubmit((batch, done) => {
      submitted.push(batch)
      const go = () => journal.submit(batch, done)
      if (holds(batch)) Effect.runFork(Effect.zipRight(gate.await, Effect.sync(go)))
      else go()
    })
    // An actor is closed only once it has an answer.
    yield* Effect.addFinalizer(() => gate.open)
    return { journal: held, submitted, letGo: gate.open }
  })
