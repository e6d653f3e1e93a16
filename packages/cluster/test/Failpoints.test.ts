/** Each place around a commit is passed, in order: before it is handed over, and before anybody is told. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import * as Failpoint from "@orrery/core/Failpoint"
import * as MemoryStore from "@orrery/core/MemoryStore"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import type { Outcome } from "@orrery/core/Run"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Residents from "../src/Residents.js"

const name = { namespace: "default", queue: "q", partition: 0 }
const retry = RetryPolicy.fixed({ maxAttempts: 3, delay: 1, jitter: 0 })
const failure: Outcome = { _tag: "failure", failure: { kind: "defect", tag: "E", message: "" }, retryable: true }

const until = (holds: () => boolean) =>
  Effect.sync(holds).pipe(
    Effect.tap((held) => held ? Effect.void : Effect.sleep("1 millis")),
    Effect.repeat({ until: (held) => held }),
    Effect.timeout("10 seconds")
  )

it.scopedLive("a run passes every place of its owner", () =>
  Effect.gen(function*() {
    const seen: Array<string> = []
    const told: Array<string> = []
    const disarm = Failpoint.arm((place) => {
      seen.push(place)
      // What is durable is told to nobody before this place has been passed.
      if (place === "enqueue.after-commit") assert.notInclude(told, "enqueued")
      if (place === "finish.after-commit") assert.notInclude(told, "success")
    })
    yield* Effect.addFinalizer(() => Effect.sync(disarm))
    const residents = yield* Residents.make({
      nodeId: "node",
      windowRunsMax: 100,
      windowBytesMax: 1e6,
      mayTakeOver: () => true
    })
    yield* residents.host(name, () => true)
    const actor = yield* residents.await(name, 5_000)
    assert(actor)
    const assigned: Array<Assignment> = []
    const session = residents.hub.attach({ workerId: "w", tasks: ["t"], credit: 1 }, (message) => {
      if (message._tag === "assign") assigned.push(...message.assignments)
    }, () => undefined)
    assert(session !== "full")

    const enqueued = yield* actor.enqueue([{
      id: unsafeMakeRunId(1_700_000_000_000),
      namespace: "default",
      queue: "q",
      task: "t",
      payload: "1",
      priority: 5,
      when: { _tag: "delay", ms: 0 },
      policy: JSON.stringify({ retry, timeoutMs: 0 }),
      keys: null,
      resend: false
    }])
    told.push("enqueued")
    assert.deepStrictEqual(enqueued, ["stored"])
    for (const outcome of [{ _tag: "interrupted" }, failure, { _tag: "success", result: "1" }] as const) {
      const starts = () => seen.filter((place) => place === "start.after-commit").length
      const before = starts()
      yield* until(() => assigned.length > 0 && starts() > before)
      const { attempt, lease, partitionId, runId } = assigned.shift()!
      const answers = yield* session.report([{ attempt, lease, partitionId, runId, outcome }])
      told.push(outcome._tag)
      assert.deepStrictEqual(answers, ["accepted"])
    }

    const kinds = ["take-over", "enqueue", "start", "requeue", "start", "retry", "start", "finish"]
    const passed = kinds.flatMap((kind) => [`${kind}.before-commit`, `${kind}.after-commit`])
    // A run that is due again is not written down as ready.
    assert.deepStrictEqual(seen, passed)
    const ofOwner = (place: Failpoint.FailpointName) =>
      !place.startsWith("report.") && !Failpoint.isOfTransactions(place)
    assert.sameMembers([...new Set(seen)], Failpoint.names.filter(ofOwner))
  }).pipe(Effect.provide(Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer()))))
