import type { StoredRun } from "@orrery/core/Journal"
import { QueueMachine } from "@orrery/core/QueueMachine"
import type { QueueRules } from "@orrery/core/QueueSettings"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import type { RunKeys } from "@orrery/core/RunKeys"
import { defaultPolicy } from "@orrery/core/RunRequest"
import type { Lender } from "@orrery/core/SpanGates"

/** A machine whose commits come at once. */
export const machineOf = (
  rules?: QueueRules,
  running: ReadonlyArray<StoredRun> = [],
  epoch = 1,
  runsMax = 100,
  lender?: Lender
) => {
  const machine = new QueueMachine(
    { partitionId: 1, epoch, agingStepMs: 1_000, maxCrashes: 3, window: { runsMax, bytesMax: 1e6 }, rules, lender },
    { now: 0, lines: [], hasTimers: false, running, adoptUntil: 2_000 }
  )
  const admit = (keys: RunKeys | null = null, change: Partial<StoredRun> = {}) => {
    const seq = machine.numbers.next()
    const run: StoredRun = {
      ...{ id: unsafeMakeRunId(seq), seq, task: "a", priority: 5, createdAt: 0, payload: "{}" },
      ...{ policy: JSON.stringify(defaultPolicy), keys: keys === null ? null : JSON.stringify(keys), state: "ready" },
      ...{ scheduledAt: 0, orderKey: seq, attempt: 0, crashes: 0, lease: 0, worker: null, failure: null },
      startedAt: null,
      ...change
    }
    machine.admitNew(run)
    return run
  }
  const commit = () => {
    for (const entry of machine.out.writes.splice(0)) {
      machine.changes.send(entry, [], [])
      machine.committed(entry)
    }
  }
  /** Ids of the runs whose workers are told of a start. */
  const start = (now: number, slots = 100) => {
    let left = slots
    machine.tick(now)
    machine.dispatch(now, { take: () => left-- > 0 ? "w" : undefined })
    commit()
    return machine.out.assignments.splice(0).map(({ assignment }) => assignment)
  }
  const end = (assignment: ReturnType<typeof start>[number], now: number) => {
    machine.outcome({ ...assignment, partitionId: 1 }, { _tag: "success", result: "1" }, now)
    commit()
  }
  const fail = (assignment: ReturnType<typeof start>[number], now: number) => {
    const failure = { kind: "failure", tag: "Down", message: "no" } as const
    machine.outcome({ ...assignment, partitionId: 1 }, { _tag: "failure", failure, retryable: true }, now)
    commit()
  }
  return { machine, admit, commit, start, end, fail }
}
