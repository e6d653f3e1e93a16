/** @effect/workflow on @effect/cluster: a job is an execution of a workflow with one activity. */
import { ClusterWorkflowEngine } from "@effect/cluster"
import { Activity, DurableClock, Workflow } from "@effect/workflow"
import { Effect, Layer, ManagedRuntime, Schema } from "effect"
import type { Job, Place, Producer, System, WorkOptions } from "../System.js"
import * as EffectCluster from "./effectCluster.js"
import { versionOf } from "./installed.js"
import { payloadOf } from "./payload.js"

const BenchWorkflow = Workflow.make({
  name: "Bench",
  payload: {
    index: Schema.Number,
    submittedUs: Schema.Number,
    dueMs: Schema.Number,
    filler: Schema.String
  },
  // An execution is known by its key: one per job.
  idempotencyKey: ({ index }) => String(index)
})

const produce = async (place: Place): Promise<Producer> => {
  const runtime = ManagedRuntime.make(
    ClusterWorkflowEngine.layer.pipe(Layer.provideMerge(EffectCluster.clientOnly(place)))
  )
  await runtime.runPromise(Effect.void)
  const send = (job: Job) => BenchWorkflow.execute(payloadOf(job), { discard: true })
  return {
    enqueueBulk: (jobs) =>
      runtime.runPromise(
        Effect.forEach(jobs, send, { concurrency: EffectCluster.sendsInFlight, discard: true })
      ),
    enqueueOne: (job) => runtime.runPromise(Effect.asVoid(send(job))),
    close: () => runtime.dispose()
  }
}

const work = (place: Place, options: WorkOptions) => {
  const handle = EffectCluster.handlerOf(options)
  const handlers = BenchWorkflow.toLayer((job) =>
    Effect.gen(function*() {
      const waitMs = job.dueMs === 0 ? 0 : job.dueMs - Date.now()
      if (waitMs > 0) yield* DurableClock.sleep({ name: "due", duration: waitMs })
      yield* Activity.make({ name: "handle", execute: handle(job) })
    })
  )
  return EffectCluster.startRunner(place, Layer.provide(handlers, ClusterWorkflowEngine.layer), options)
}

export const systems: ReadonlyArray<System> = [{
  id: "effect-workflow:default",
  peer: "@effect/workflow",
  version: versionOf("@effect/workflow"),
  settings: {
    activities: 1,
    poolSize: EffectCluster.poolSize,
    sendsInFlight: EffectCluster.sendsInFlight,
    serialization: "msgpack"
  },
  needs: "postgres",
  durability: "commit",
  keepsHistory: "always",
  workloads: ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W12"],
  unsupported: { W11: "1,000/s are beyond it: W5", W13: "it has no queues" },
  share: 0.02,
  prepare: EffectCluster.prepare,
  produce,
  work,
  remaining: EffectCluster.remaining
}]
