/** Each place around a commit is passed, in order: before it is handed over, and before anybody is told. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import * as Failpoint from "@orrery/core/Failpoint"
import * as MemoryStore from "@orrery/core/MemoryStore"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { attach, failure, reportOf, request, startNode, success, until } from "./actorRig.js"

const retry = RetryPolicy.fixed({ maxAttempts: 3, delay: 1, jitter: 0 })

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
    const { actor, residents } = yield* startNode()
    const { assigned, session } = attach(residents, 1)

    const enqueued = yield* actor.enqueue([request({ policy: JSON.stringify({ retry, timeoutMs: 0 }) })])
    told.push("enqueued")
    assert.deepStrictEqual(enqueued, ["stored"])
    for (const outcome of [{ _tag: "interrupted" } as const, failure, success]) {
      const starts = () => seen.filter((place) => place === "start.after-commit").length
      const before = starts()
      yield* until(() => assigned.length > 0 && starts() > before)
      const answers = yield* session.report([reportOf(assigned.shift()!, outcome)])
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
