/** A client of a simulation: asks for each run until it is told that it is durable, as `RunsClient` does. */
import type { RunKeys } from "@orrery/core/RunKeys"
import type { Asked } from "../history/HistoryEvent.js"
import type { RunRequest } from "@orrery/core/RunRequest"
import { idOf, type ScheduleDefinition } from "@orrery/core/schedule/ScheduleDefinition"
import { partitionOf } from "@orrery/core/schedule/ScheduleStore"
import type { Recorder } from "./Recorder.js"
import type { SimNetwork } from "./SimNetwork.js"
import type { EnqueueAnswer, SimNode } from "./SimNode.js"
import type { PlannedRun } from "./Plan.js"
import { SimProcess } from "./SimProcess.js"
import { placeOf } from "./SimSchedules.js"
import type { SimShards } from "./SimShards.js"
import type { SimStore } from "./SimStore.js"

const answerMs = 1_500
const againMsMin = 40
const againMsMax = 400
/** Part of the requests that are put to any node, as by a client whose picture of the cluster is old. */
const astrayPart = 0.1

/** Part of the transactions after which a node is nudged; the others are found by the sweep. */
const nudgedPart = 0.5

export const namespace = "default"

/** What the keys of a run promise about others. */
const promised = ({ isInTransaction, keys, queue }: PlannedRun): Pick<Asked, "orderingKey" | "limits"> => {
  const { limits, order } = keys === null ? {} : JSON.parse(keys) as RunKeys
  return {
    // Those of the inbox stand in line from when their owner takes them.
    ...order === undefined || isInTransaction ? {} : { orderingKey: `${queue} ${order}` },
    ...limits === undefined
      ? {}
      : { limits: limits.map(({ key, limit, name }) => ({ key: `${queue} ${name} ${key}`, limit })) }
  }
}

export class SimClient {
  private readonly process: SimProcess
  /** Runs that were asked for and not answered. */
  unanswered = 0

  constructor(
    private readonly network: SimNetwork,
    private readonly store: SimStore,
    private readonly shards: SimShards,
    private readonly nodes: () => ReadonlyArray<SimNode>,
    private readonly recorder: Recorder
  ) {
    this.process = new SimProcess(network.world, "client")
  }

  private get random() {
    return this.network.world.random
  }

  ask(run: PlannedRun): void {
    this.unanswered += 1
    this.process.later(run.at, () => {
      const { databaseTime } = this.network.world
      const isInstant = run.isInstant && run.delayMs > 0
      const request: RunRequest = {
        id: run.id,
        namespace,
        queue: run.queue,
        task: run.task,
        payload: run.payload,
        priority: run.priority,
        when: isInstant ? { _tag: "at", ms: databaseTime + run.delayMs } : { _tag: "delay", ms: run.delayMs },
        policy: run.policy,
        keys: run.keys,
        resend: false
      }
      const dueAt = isInstant ? databaseTime + run.delayMs : 0
      this.recorder.tell({ _tag: "asked", by: "client", run: run.id, queue: run.queue, dueAt, ...promised(run) })
      if (run.isInTransaction) this.transact(run, request)
      else this.send(run, request)
    })
  }

  /** Commits it, again until that is known; then some node may be told. */
  private transact(run: PlannedRun, request: RunRequest): void {
    this.store.transact(this.process, request, (isCommitted) => {
      if (!isCommitted) {
        return void this.process.later(
          this.random.between(againMsMin, againMsMax),
          () => this.transact(run, request)
        )
      }
      this.stored(run, request)
      const node = this.nodeFor(request)
      const { namespace, queue } = request
      if (this.random.chance(nudgedPart)) {
        this.network.send(this.process, node?.process, () => node?.nudge([{ namespace, queue, partition: 0 }], false))
      }
    })
  }

  /** Declares a schedule until it is there. */
  declare(definition: ScheduleDefinition): void {
    this.process.later(this.random.between(againMsMin, againMsMax), () => {
      let isOpen = true
      const end = (isThere: boolean): void => {
        if (!isOpen) return
        isOpen = false
        timer.isCancelled = true
        if (!isThere) this.declare(definition)
      }
      const timer = this.process.later(answerMs, () => end(false))
      const node = this.shards.ownerOf(placeOf(partitionOf(idOf(definition))))
      if (node === undefined) return
      this.network.send(
        this.process,
        node.process,
        () => node.declare(definition, (isThere) => this.network.send(node.process, this.process, () => end(isThere)))
      )
    })
  }

  private send(run: PlannedRun, request: RunRequest): void {
    let isOpen = true
    const end = (answer: EnqueueAnswer | "silence"): void => {
      if (!isOpen) return
      isOpen = false
      timer.isCancelled = true
      if (answer === undefined) return this.stored(run, request)
      if (typeof answer === "object" && !answer.mayTryAgain) {
        this.unanswered -= 1
        return this.recorder.tell({ _tag: "refused", by: "client", run: run.id, reason: answer.refused })
      }
      this.recorder.count("resent")
      this.process.later(
        this.random.between(againMsMin, againMsMax),
        () => this.send(run, { ...request, resend: true })
      )
    }
    const timer = this.process.later(answerMs, () => end("silence"))
    const node = this.nodeFor(request)
    if (node === undefined) return
    this.network.send(
      this.process,
      node.process,
      () => node.enqueue([request], ([answer]) => this.network.send(node.process, this.process, () => end(answer)))
    )
  }

  private stored(run: PlannedRun, request: RunRequest): void {
    this.unanswered -= 1
    this.recorder.tell({ _tag: "acknowledged", by: "client", run: run.id })
    if (run.readAfterMs !== undefined) this.process.later(run.readAfterMs, () => this.read(run))
    if (run.cancelAfterMs === undefined) return
    this.process.later(run.cancelAfterMs, () => {
      const node = this.nodeFor(request)
      this.network.send(this.process, node?.process, () => node?.cancel(request))
    })
  }

  private read(run: PlannedRun): void {
    const askedAt = this.network.world.now
    const [node] = this.nodes()
    if (node === undefined) return
    this.network.send(this.process, node.process, () =>
      this.store.find(node.process, run.id, (found) => {
        if (found === null) return
        this.network.send(node.process, this.process, () => {
          this.recorder.tell({ _tag: "read", by: "client", run: run.id, askedAt, found: found !== undefined })
        })
      }))
  }

  private nodeFor({ queue }: RunRequest): SimNode | undefined {
    const owner = this.shards.ownerOf({ namespace, queue, partition: 0 })
    const nodes = this.nodes()
    return owner === undefined || this.random.chance(astrayPart)
      ? nodes[this.random.integer(0, nodes.length - 1)]
      : owner
  }
}
