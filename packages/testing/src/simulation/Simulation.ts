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
import { partitionKey } from "@orrery/core/PartitionStore"
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
import { drainOf, sweepPlace } from "./SimInbox.js"
import { SimNetwork } from "./SimNetwork.js"
import { SimNode } from "./SimNode.js"
import type { SimProcess } from "./SimProcess.js"
import { type PlannedSchedule, runsFrom, SimSchedules } from "./SimSchedules.js"
import { SimShards } from "./SimShards.js"
import { SimStore } from "./SimStore.js"
import { SimWorker } from "./SimWorker.js"
import { World } from "./World.js"

export interface Options {
  /** Handlers of all the tasks. Built anew for each worker, as each process of a cluster does. */
  readonly handlers: Layer.Layer<never, never, Handlers>
  /** Their layers hold nothing that a run changes: built once, for all workers of all histories. Default false. */
  readonly handlersHoldNothing?: boolean
  readonly tasks: ReadonlyArray<Plan.PlannedTask>
  /** They fire in a part of the histories; nothing else asks for runs of their tasks. Default: none. */
  readonly schedules?: ReadonlyArray<PlannedSchedule>
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

const sweepKey = partitionKey(sweepPlace)
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
  const planned = plan.hasSchedules ? options.schedules ?? [] : []
  const schedules = planned.length === 0 ? undefined : new SimSchedules(world, store, planned, options.mutation)
  const cluster = makeCluster(plan, options, { world, recorder, network, store, schedules })
  const queues = [...new Set(options.tasks.map(({ queue }) => queue))]
  cluster.shards = new SimShards(
    world,
    network,
    () => cluster.listed,
    [
      ...queues.map((queue) => ({ namespace, queue, partition: 0 })),
      ...schedules?.places ?? [],
      ...hasInbox(plan) ? [sweepPlace] : []
    ]
  )
  const client = new SimClient(network, store, cluster.shards, () => cluster.listed, recorder)
  for (const each of plan.runs) client.ask(each)
  for (const { definition } of planned) client.declare(definition)
  for (const fault of plan.faults) world.after(fault.at, () => strike(cluster, recorder, fault))
  const measure = (): void => {
    for (const { now } of cluster.nodeSeats) now.measure(options.tasks.length)
    world.after(lookMs, measure)
  }
  measure()

  const disarm = arm(cluster.passed)
  const lastAskedAt = Math.max(...plan.runs.map(({ at }) => at))
  const healedAt = Math.max(Plan.activeMs, ...plan.faults.map(({ at, forMs }) => at + forMs))
  // What has ended stays so.
  const open = new Set(plan.runs.map(({ id }) => id))
  const allEnded = (): boolean => {
    for (const id of open) {
      const run = store.seen(id)
      if (run === undefined) continue
      if (!isFinal(run.state)) return false
      open.delete(id)
    }
    return true
  }
  const isOver = () => world.now > lastAskedAt && client.unanswered === 0 && allEnded() && schedules?.isOver !== false
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
  for (const { id } of plan.runs) tellFinal(store, recorder, id)
  schedules?.tell(recorder)
  const { history } = recorder
  return { plan, history, violations: checkAll(history), coverage: recorder.coverage, steps: world.steps, simulatedMs }
}

const hasInbox = ({ runs }: Plan.Plan): boolean => runs.some(({ isInTransaction }) => isInTransaction)

const tellFinal = (store: SimStore, recorder: Recorder, id: RunId): void => {
  const run = store.seen(id)
  if (run === undefined) return
  recorder.tell({ _tag: "final", by: "simulation", run: id, state: run.state, rows: 1 })
}

/** By layer. Building it anew for each worker is an eighth of the time of a history. */
const built = new WeakMap<Options["handlers"], ReturnType<typeof SimWorker.known>>()

const builtOnce = (handlers: Options["handlers"]): ReturnType<typeof SimWorker.known> => {
  let known = built.get(handlers)
  if (known === undefined) {
    known = Effect.succeed(Effect.runSync(Effect.scoped(SimWorker.known(handlers))))
    built.set(handlers, known)
  }
  return known
}

const makeCluster = (
  plan: Plan.Plan,
  { handlers, handlersHoldNothing = false, mutation }: Options,
  { network, recorder, schedules, store, world }: {
    readonly world: World
    readonly recorder: Recorder
    readonly network: SimNetwork
    readonly store: SimStore
    readonly schedules: SimSchedules | undefined
  }
): SimCluster => {
  const { slots, windowRunsMax } = plan
  const { values: cluster } = ClusterConfig.gather()
  const { leaseMs } = cluster
  const known = handlersHoldNothing ? builtOnce(handlers) : SimWorker.known(handlers)
  const inbox = !hasInbox(plan) ? undefined : (node: SimNode) =>
    drainOf({
      network,
      store,
      process: node.process,
      nodeId: node.id,
      residents: node.residents!,
      byId: (id) => sim.listed.find((each) => each.id === id),
      ownerOf: (name) => sim.shards.ownerOf(name),
      isSweeper: () => node.owns(sweepKey),
      onAcquired: (callback) => node.onAcquired(callback)
    })
  const toOwners = (process: SimProcess) =>
    runsFrom(network, process, ({ queue }) => sim.shards.ownerOf({ namespace, queue, partition: 0 }))
  const sim: SimCluster = new SimCluster(world, network, store, recorder, {
    nodes: plan.nodes,
    workers: plan.workers,
    makeNode: (name, id, drift) =>
      new SimNode(world, name, id, recorder, store, {
        cluster,
        windowRunsMax,
        drift,
        mutation,
        schedules,
        runsFrom: toOwners,
        inbox
      }),
    makeWorker: (name, id, drift, nodes) =>
      new SimWorker(network, name, id, recorder, nodes, { slots, leaseMs, drift, known, mutation })
  })
  return sim
}
