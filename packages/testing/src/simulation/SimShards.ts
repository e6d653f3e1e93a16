/**
 * Who holds which partition, as the shard manager decides it: each node is told, late; a dead or silent one loses what it
 * holds to others, without being asked. Only the epoch fence keeps two that both believe to be the owner apart.
 */
import { partitionKey, type PartitionName } from "@orrery/core/PartitionStore"
import type { SimNetwork } from "./SimNetwork.js"
import type { SimNode } from "./SimNode.js"
import { storeName } from "./SimStore.js"
import type { World } from "./World.js"

const refreshMs = 1_000
/** Silence of a node after which its locks are free, ms. */
const silentMsMax = 3_500

interface Seat {
  readonly name: PartitionName
  readonly key: string
  owner: SimNode | undefined
  /** It is on its way from one node to another. */
  isMoving: boolean
}

export class SimShards {
  private readonly seats: ReadonlyArray<Seat>
  private readonly heardAt = new Map<SimNode, number>()

  constructor(
    private readonly world: World,
    private readonly network: SimNetwork,
    private readonly nodes: () => ReadonlyArray<SimNode>,
    names: ReadonlyArray<PartitionName>
  ) {
    this.seats = names.map((name) => ({ name, key: partitionKey(name), owner: undefined, isMoving: false }))
    this.round()
  }

  ownerOf(name: PartitionName): SimNode | undefined {
    const key = partitionKey(name)
    return this.seats.find((seat) => seat.key === key)?.owner
  }

  /** Nodes refresh their locks; what nobody holds is given away; what is held by too few is spread. */
  private readonly round = (): void => {
    for (const node of this.nodes()) this.refresh(node)
    const live = this.nodes().filter((node) => this.isLive(node))
    for (const seat of this.seats) {
      if (seat.owner !== undefined && !this.isLive(seat.owner)) seat.owner = undefined
      if (seat.owner === undefined && live.length > 0 && !seat.isMoving) this.give(seat, this.leastLoaded(live))
    }
    this.spread(live)
    this.world.after(refreshMs, this.round)
  }

  private isLive(node: SimNode): boolean {
    return this.world.now - (this.heardAt.get(node) ?? this.world.now) < silentMsMax && this.nodes().includes(node)
  }

  private leastLoaded(live: ReadonlyArray<SimNode>): SimNode {
    const load = (node: SimNode) => this.seats.filter(({ owner }) => owner === node).length
    return live.reduce((least, node) => load(node) < load(least) ? node : least)
  }

  /** A question and its answer: the node learns what is its own, and that its locks hold. */
  private refresh(node: SimNode): void {
    if (!this.heardAt.has(node)) this.heardAt.set(node, this.world.now)
    const cut = () => this.network.isCut(node.name, storeName)
    node.process.later(0, () => {
      const askedAt = node.process.monotonic()
      if (cut()) return
      this.world.after(this.network.delayMs(), () => {
        this.heardAt.set(node, this.world.now)
        const own = this.seats.filter(({ owner }) => owner === node)
        if (cut()) return
        this.world.after(this.network.delayMs(), () => node.process.enter(() => this.told(node, own, askedAt)))
      })
    })
  }

  private told(node: SimNode, own: ReadonlyArray<Seat>, askedAt: number): void {
    node.confirmedAt = Math.max(node.confirmedAt, askedAt)
    for (const seat of this.seats) {
      if (node.owns(seat.key) && !own.includes(seat) && !seat.isMoving) node.disown(seat.name)
    }
    for (const { name } of own) node.own(name)
  }

  private give(seat: Seat, to: SimNode): void {
    seat.owner = to
    this.world.after(this.network.delayMs(), () =>
      to.process.enter(() => {
        if (seat.owner === to) to.own(seat.name)
      }))
  }

  private spread(live: ReadonlyArray<SimNode>): void {
    if (live.length < 2) return
    const load = (node: SimNode) => this.seats.filter(({ owner }) => owner === node).length
    const to = this.leastLoaded(live)
    const seat = this.seats.find(({ isMoving, owner }) =>
      !isMoving && owner !== undefined && live.includes(owner) && load(owner) > load(to) + 1
    )
    if (seat !== undefined) this.move(seat, to)
  }

  /** Hands one over as a drain does: the old owner writes what it has decided, and lets go. */
  private move(seat: Seat, to: SimNode): void {
    const from = seat.owner!
    seat.isMoving = true
    seat.owner = undefined
    const arrive = (): void => {
      if (!seat.isMoving) return
      seat.isMoving = false
      if (this.nodes().includes(to)) this.give(seat, to)
    }
    // A node that does not answer has lost it anyway.
    this.world.after(silentMsMax, arrive)
    from.process.later(0, () => from.disown(seat.name, () => void this.world.after(this.network.delayMs(), arrive)))
  }

  /** Moves one to another node, for no reason. */
  moveAny(): void {
    const live = this.nodes().filter((node) => this.isLive(node))
    const movable = this.seats.filter(({ isMoving, owner }) => !isMoving && owner !== undefined && live.includes(owner))
    if (movable.length === 0 || live.length < 2) return
    const seat = this.world.random.pick(movable)
    this.move(seat, this.world.random.pick(live.filter((node) => node !== seat.owner)))
  }

  /** Gives one to another node without a word to the one that has it, as when its locks were lost unnoticed. */
  stealAny(): void {
    const live = this.nodes().filter((node) => this.isLive(node))
    const seat = this.world.random.pick(this.seats)
    const others = live.filter((node) => node !== seat.owner)
    if (others.length > 0 && !seat.isMoving) this.give(seat, this.world.random.pick(others))
  }

  /** It says goodbye: what it holds is moved. */
  drain(node: SimNode): void {
    const others = this.nodes().filter((other) => other !== node && this.isLive(other))
    if (others.length === 0) return
    for (const seat of this.seats) {
      if (seat.owner === node && !seat.isMoving) this.move(seat, this.world.random.pick(others))
    }
  }
}
