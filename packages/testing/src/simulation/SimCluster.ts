/** The machines of a simulation: what stands in each place now, and what comes after it when it is gone. */
import type { FailpointName } from "@orrery/core/Failpoint"
import type { Recorder } from "./Recorder.js"
import type { SimNetwork } from "./SimNetwork.js"
import type { SimNode } from "./SimNode.js"
import type { SimShards } from "./SimShards.js"
import type { SimStore } from "./SimStore.js"
import type { SimWorker } from "./SimWorker.js"
import type { World } from "./World.js"

/** Until the others have noticed that a node is gone, ms. */
const noticedMsMax = 1_500
/** How wrong the speed of a clock may be: half of what `DatabaseClock` reckons with, for there are two. */
const driftMax = 0.0005

interface Place<A> {
  now: A
  /** The place is empty: the process has died and the next has not been started. */
  isEmpty: boolean
  incarnation: number
}

export interface ClusterOptions {
  readonly nodes: number
  readonly workers: number
  readonly makeNode: (name: string, id: string, drift: number) => SimNode
  readonly makeWorker: (name: string, id: string, drift: number, nodes: ReadonlyArray<SimNode>) => SimWorker
}

interface Strike {
  readonly name: FailpointName
  skip: number
  readonly downMs: number
}

export class SimCluster {
  readonly nodeSeats: ReadonlyArray<Place<SimNode>>
  readonly workerSeats: ReadonlyArray<Place<SimWorker>>
  /** As the shard manager and clients know them: a dead one stays for a while. */
  listed: ReadonlyArray<SimNode>
  shards!: SimShards
  private readonly strikes: Array<Strike> = []

  constructor(
    readonly world: World,
    readonly network: SimNetwork,
    readonly store: SimStore,
    private readonly recorder: Recorder,
    private readonly options: ClusterOptions
  ) {
    this.nodeSeats = Array.from({ length: options.nodes }, (_, n) => ({
      now: options.makeNode(`node-${n}`, `node-${n}#1`, this.drift()),
      isEmpty: false,
      incarnation: 1
    }))
    this.listed = this.nodeSeats.map(({ now }) => now)
    this.workerSeats = Array.from({ length: options.workers }, (_, n) => ({
      now: options.makeWorker(`worker-${n}`, `worker-${n}#1`, this.drift(), this.listed),
      isEmpty: false,
      incarnation: 1
    }))
  }

  private drift(): number {
    return this.world.random.between(1 - driftMax, 1 + driftMax)
  }

  crashNode(seat: Place<SimNode>, { downMs, isSilent }: { readonly isSilent: boolean; readonly downMs: number }): void {
    if (seat.isEmpty) return
    this.recorder.count("nodeCrashes")
    const gone = seat.now
    seat.isEmpty = true
    this.network.hangUp(gone.process, isSilent)
    // A silent one is missed when its locks run out.
    if (!isSilent) this.world.after(this.world.random.between(0, noticedMsMax), () => this.unlist(gone))
    this.world.after(downMs, () => {
      seat.incarnation += 1
      seat.now = this.options.makeNode(gone.name, `${gone.name}#${seat.incarnation}`, this.drift())
      seat.isEmpty = false
      this.list([...this.listed.filter((node) => node !== gone), seat.now])
    })
    gone.process.kill()
  }

  private unlist(gone: SimNode): void {
    this.list(this.listed.filter((node) => node !== gone))
  }

  private list(nodes: ReadonlyArray<SimNode>): void {
    this.listed = nodes
    for (const { now } of this.workerSeats) {
      this.world.after(this.network.delayMs(), () => now.process.enter(() => now.listed(this.listed)))
    }
  }

  crashWorker(
    seat: Place<SimWorker>,
    { downMs, isSilent }: { readonly isSilent: boolean; readonly downMs: number }
  ): void {
    if (seat.isEmpty) return
    this.recorder.count("workerCrashes")
    const gone = seat.now
    seat.isEmpty = true
    this.network.hangUp(gone.process, isSilent)
    this.world.after(downMs, () => this.replace(seat))
    gone.process.kill()
  }

  drainWorker(seat: Place<SimWorker>, downMs: number): void {
    if (seat.isEmpty) return
    const gone = seat.now
    seat.isEmpty = true
    gone.process.later(0, () =>
      gone.drain(() => {
        this.network.hangUp(gone.process, false)
        this.world.after(downMs, () => this.replace(seat))
        gone.process.kill()
      }))
  }

  private replace(seat: Place<SimWorker>): void {
    seat.incarnation += 1
    const { name } = seat.now
    seat.now = this.options.makeWorker(name, `${name}#${seat.incarnation}`, this.drift(), this.listed)
    seat.isEmpty = false
  }

  /** Whichever process passes the point next, after `skip` times, dies there. */
  armFailpoint(name: FailpointName, skip: number, downMs: number): void {
    this.strikes.push({ name, skip, downMs })
  }

  /** The hook of the failpoints. */
  readonly passed = (name: FailpointName): void => {
    const { current } = this.world
    const strike = this.strikes.find((each) => each.name === name)
    if (strike === undefined || current === undefined || !current.isAlive || strike.skip-- > 0) return
    this.strikes.splice(this.strikes.indexOf(strike), 1)
    this.recorder.count("failpoints")
    const crash = { isSilent: false, downMs: strike.downMs }
    const node = this.nodeSeats.find(({ isEmpty, now }) => !isEmpty && now.process === current)
    if (node !== undefined) return this.crashNode(node, crash)
    const worker = this.workerSeats.find(({ isEmpty, now }) => !isEmpty && now.process === current)
    if (worker !== undefined) this.crashWorker(worker, crash)
  }

  /** Nothing is done to the system any more. */
  disarm(): void {
    this.strikes.length = 0
  }
}
