/**
 * A whole cluster in one function call: the real queue machines, actors, hubs, workers and handlers over a simulated store,
 * network and clock, from one seed, with faults. The same seed makes the same history, to the last step.
 *
 * For your own tasks: give their handlers and how their payloads are made, and run a few thousand seeds. Handlers may use
 * everything of Effect; what waits for the outside world (promises, sockets) never ends here.
 *
 * Not simulated: SQL, sockets and frames, and the library that decides who holds which shard. Those are tested with real
 * processes.
 */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { arm } from "@orrery/core/Failpoint"
import type { Handlers } from "@orrery/core/Handlers"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { isFinal } from "@orrery/core/RunState"
import { Effect, type Layer } from "effect"
import { checkAll, type Violation } from "../history/checkers.js"
import type { HistoryEvent } from "../history/HistoryEvent.js"
import type * as Coverage from "./Coverage.js"
import type { Mutation } from "./Mutation.js"
import * as Plan from "./Plan.js"
import { Random } from "../Random.js"
import { Recorder } from "./Recorder.js"
import { namespace, SimClient } from "./SimClient.js"
import { SimCluster } from "./SimCluster.js"
import { strike } from "./SimFaults.js"
import { SimNetwork } from "./SimNetwork.js"
import { SimNode } from "./SimNode.js"
import { SimShards } from "./SimShards.js"
import { SimStore } from "./SimStore.js"
import { SimWorker } from "./SimWorker.js"
import { World } from "./World.js"

export interface Options {
  /** Handlers of all the tasks. Built anew for each worker. */
  readonly handlers: Layer.Layer<never, never, Handlers>
  readonly tasks: ReadonlyArray<Plan.PlannedTask>
  /** Runs of one history, at most. Default 40. */
  readonly runsMax?: number
  /** Faults of one history, at most. Default 8. */
  readonly faultsMax?: number
  /** Faults that may occur. Default: all. */
  readonly kinds?: ReadonlyArray<Plan.FaultKind>
  readonly mutation?: Mutation
}

export interface Outcome {
  readonly plan: Plan.Plan
  readonly history: ReadonlyArray<HistoryEvent>
  readonly violations: ReadonlyArray<Violation>
  readonly coverage: Coverage.Coverage
  /** Events worked off, and how long the cluster believes it took, ms. */
  readonly steps: number
  readonly simulatedMs: number
}

/** Everything must have ended so long after the last fault was over, ms. */
const quiesceMs = 120_000
/** How often it is looked whether all is over, ms. */
const lookMs = 1_000

/** `payload` makes the payload of the n-th run. */
export const task = <Payload>(
  definition: { readonly request: (payload: Payload) => Effect.Effect<RunRequest, { readonly message: string }> },
  payload: (random: Random, n: number) => Payload
): Plan.PlannedTask => {
  const requestOf = (of: Payload) => Effect.runSync(definition.request(of))
  const { policy, queue, task } = requestOf(payload(new Random(0), 0))
  return {
    task,
    queue,
    policy,
    make: (random, n) => {
      const { keys, payload: text } = requestOf(payload(random, n))
      return { payload: text, keys }
    }
  }
}

const planOptions = (
  { faultsMax = 8, kinds = Plan.faultKinds, runsMax = 40, tasks }: Options
): Plan.PlanOptions => ({ tasks, runsMax, faultsMax, kinds })

export const planOf = (seed: number, options: Options): Plan.Plan => Plan.make(seed, planOptions(options))

/** One history. Synchronous: nothing else of this process happens meanwhile. */
export const run = (plan: Plan.Plan, options: Options): Outcome => {
  const world = new World(plan.seed)
  const recorder = new Recorder(world)
  const network = new SimNetwork(world, recorder, plan)
  const store = new SimStore(world, network, recorder, options.mutation)
  const cluster = makeCluster(plan, options, { world, recorder, network, store })
  const queues = [...new Set(options.tasks.map(({ queue }) => queue))]
  cluster.shards = new SimShards(
    world,
    network,
    () => cluster.listed,
    queues.map((queue) => ({ namespace, queue, partition: 0 }))
  )
  const client = new SimClient(network, store, cluster.shards, () => cluster.listed, recorder)
  for (const each of plan.runs) client.ask(each)
  for (const fault of plan.faults) world.after(fault.at, () => strike(cluster, recorder, fault))
  const measure = (): void => {
    for (const { now } of cluster.nodeSeats) now.measure(options.tasks.length)
    world.after(lookMs, measure)
  }
  measure()

  const disarm = arm(cluster.passed)
  const lastAskedAt = Math.max(...plan.runs.map(({ at }) => at))
  const healedAt = Math.max(Plan.activeMs, ...plan.faults.map(({ at, forMs }) => at + forMs))
  const isOver = () =>
    world.now > lastAskedAt && client.unanswered === 0 && plan.runs.every(({ id }) => isEnded(store, id))
  // Once all have ended there is nothing left to go wrong.
  const runTo = (end: number): void => {
    while (world.now < end && !isOver()) world.run(Math.min(end, world.now + lookMs))
  }
  try {
    world.inside(() => {
      runTo(Plan.activeMs)
      cluster.disarm()
      runTo(healedAt)
      recorder.tell({ _tag: "healed", by: "simulation", what: "everything" })
      runTo(healedAt + quiesceMs)
    })
  } finally {
    disarm()
  }
  const simulatedMs = world.now
  for (const { id } of plan.runs) tellFinal(store, recorder, world, id)
  const { history } = recorder
  return { plan, history, violations: checkAll(history), coverage: recorder.coverage, steps: world.steps, simulatedMs }
}

const isEnded = (store: SimStore, id: RunId): boolean => {
  const run = store.tables.find(id, 0)
  return run === undefined || isFinal(run.state)
}

const tellFinal = (store: SimStore, recorder: Recorder, world: World, id: RunId): void => {
  const run = store.tables.find(id, world.databaseTime)
  if (run === undefined) return
  recorder.tell({ _tag: "final", by: "simulation", run: id, state: run.state, rows: 1 })
}

const makeCluster = (
  plan: Plan.Plan,
  { handlers, mutation }: Options,
  { network, recorder, store, world }: {
    readonly world: World
    readonly recorder: Recorder
    readonly network: SimNetwork
    readonly store: SimStore
  }
): SimCluster => {
  const { slots, windowRunsMax } = plan
  const { values: cluster } = ClusterConfig.gather()
  const { leaseMs } = cluster
  return new SimCluster(world, network, store, recorder, {
    nodes: plan.nodes,
    workers: plan.workers,
    makeNode: (name, id, drift) =>
      new SimNode(world, name, id, recorder, store, { cluster, windowRunsMax, drift, mutation }),
    makeWorker: (name, id, drift, nodes) =>
      new SimWorker(network, name, id, recorder, nodes, { slots, leaseMs, drift, handlers, mutation })
  })
}
