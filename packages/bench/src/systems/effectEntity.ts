/**
 * @effect/cluster: a job is a persisted message to one of 256 entities. Handlers run before their replies are stored, so
 * that the store is behind the starts.
 */
import { ClusterSchema, DeliverAt, Entity } from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { DateTime, Effect, ManagedRuntime, Schema } from "effect"
import type { Job, Place, Producer, System, WorkOptions } from "../System.js"
import * as EffectCluster from "./effectCluster.js"
import { versionOf } from "./installed.js"
import { payloadOf } from "./payload.js"

const entities = 256
/** Messages of one entity at a time: as many as its mailbox holds. */
const handlersOfEntity = 4_096

class RunJob extends Schema.Class<RunJob>("RunJob")({
  index: Schema.Number,
  submittedUs: Schema.Number,
  dueMs: Schema.Number,
  filler: Schema.String
}) {
  [DeliverAt.symbol]() {
    return DateTime.unsafeMake(this.dueMs)
  }
}

const BenchEntity = Entity.make("Bench", [Rpc.make("Run", { payload: RunJob })])
  .annotateRpcs(ClusterSchema.Persisted, true)

const entityId = (job: Job) => `${job.queue}-${job.index % entities}`

const produce = async (place: Place): Promise<Producer> => {
  const runtime = ManagedRuntime.make(EffectCluster.clientOnly(place))
  const client = await runtime.runPromise(BenchEntity.client)
  const send = (job: Job) => client(entityId(job)).Run(payloadOf(job), { discard: true })
  return {
    enqueueBulk: (jobs) =>
      runtime.runPromise(
        Effect.forEach(jobs, send, { concurrency: EffectCluster.sendsInFlight, discard: true })
      ),
    enqueueOne: (job) => runtime.runPromise(send(job)),
    close: () => runtime.dispose()
  }
}

const work = (place: Place, options: WorkOptions) => {
  const handle = EffectCluster.handlerOf(options)
  return EffectCluster.startRunner(
    place,
    BenchEntity.toLayer({ Run: ({ payload }) => handle(payload) }, { concurrency: handlersOfEntity }),
    options
  )
}

export const systems: ReadonlyArray<System> = [{
  id: "effect-entity:default",
  peer: "@effect/cluster",
  version: versionOf("@effect/cluster"),
  settings: {
    entities,
    handlersOfEntity,
    poolSize: EffectCluster.poolSize,
    sendsInFlight: EffectCluster.sendsInFlight,
    serialization: "msgpack"
  },
  needs: "postgres",
  durability: "commit",
  keepsHistory: "always",
  workloads: ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W12", "W13"],
  unsupported: { W11: "1,000/s are beyond it: W5" },
  share: 0.1,
  prepare: EffectCluster.prepare,
  produce,
  work,
  remaining: EffectCluster.remaining
}]
