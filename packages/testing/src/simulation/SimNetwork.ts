/**
 * What processes say to each other: late, and sometimes not at all.
 *
 * A `Connection` is as TCP is: in order, and whole until it breaks; while its link is cut nothing arrives, and what was said
 * meanwhile arrives when it is healed. A `send` is a message of its own: lost while the link is cut, sometimes lost or
 * doubled when it is not, and overtaken by others.
 */
import type { Recorder } from "./Recorder.js"
import { instantMs, type SimProcess } from "./SimProcess.js"
import type { World } from "./World.js"

export interface NetworkOptions {
  /** Part of the single messages that are lost. */
  readonly lossPart: number
  /** Part of the single messages that arrive twice. */
  readonly doublePart: number
  /** Part of all messages that take up to `slowMsMax`. */
  readonly slowPart: number
}

const fastMsMax = 1.5
const slowMsMax = 400
/** Until the other side of a dead process is told that it has hung up. */
const hangUpMsMax = 20

type Side = "near" | "far"

export class SimNetwork {
  private readonly cuts = new Map<string, number>()
  readonly connections = new Set<Connection>()

  constructor(readonly world: World, readonly recorder: Recorder, private readonly options: NetworkOptions) {}

  /** How long a message takes. */
  delayMs(): number {
    const { random } = this.world
    return random.chance(this.options.slowPart) ? random.between(0, slowMsMax) : random.between(0.05, fastMsMax)
  }

  /** Nothing passes between the two until as many calls of `heal`. Names of machines: a process keeps its over restarts. */
  cut(a: string, b: string): void {
    const key = linkOf(a, b)
    this.cuts.set(key, (this.cuts.get(key) ?? 0) + 1)
  }

  heal(a: string, b: string): void {
    const key = linkOf(a, b)
    const left = (this.cuts.get(key) ?? 0) - 1
    if (left > 0) this.cuts.set(key, left)
    else this.cuts.delete(key)
    if (left <= 0) { for (const connection of this.connections) connection.healed() }
  }

  isCut(a: string, b: string): boolean {
    return this.cuts.has(linkOf(a, b))
  }

  /** One message. */
  send(from: SimProcess, to: SimProcess | undefined, run: () => void): void {
    if (!from.isAlive || to === undefined || this.isCut(from.name, to.name)) return
    const { random } = this.world
    if (random.chance(this.options.lossPart)) return
    const copies = random.chance(this.options.doublePart) ? 2 : 1
    for (let copy = 0; copy < copies; copy++) this.world.after(this.delayMs(), () => to.enter(run))
  }

  connect(near: SimProcess, far: SimProcess): Connection {
    const connection = new Connection(this, near, far)
    this.connections.add(connection)
    return connection
  }

  /** The connections of a process that has died. `isSilent`: the other sides are not told, as when a machine loses power. */
  hangUp(process: SimProcess, isSilent: boolean): void {
    for (const connection of this.connections) {
      if (connection.near !== process && connection.far !== process) continue
      if (isSilent) this.connections.delete(connection)
      else connection.break()
    }
  }
}

const linkOf = (a: string, b: string): string => a < b ? `${a}|${b}` : `${b}|${a}`

export class Connection {
  isOpen = true
  /** Called on each side when it notices that the connection has broken. */
  readonly onBroken: { near: () => void; far: () => void } = { near: () => undefined, far: () => undefined }
  private readonly lastAt: { near: number; far: number } = { near: 0, far: 0 }
  private held: Array<{ readonly to: Side; readonly run: () => void }> = []

  constructor(
    private readonly network: SimNetwork,
    readonly near: SimProcess,
    readonly far: SimProcess
  ) {}

  send(to: Side, run: () => void): void {
    const from = to === "near" ? this.far : this.near
    if (!this.isOpen || !from.isAlive) return
    if (this.network.isCut(this.near.name, this.far.name)) this.held.push({ to, run })
    else this.deliver(to, run)
  }

  private deliver(to: Side, run: () => void): void {
    const { world } = this.network
    const at = Math.max(world.now + this.network.delayMs(), this.lastAt[to] + instantMs)
    this.lastAt[to] = at
    // What was sent before a break arrives, or not.
    world.after(at - world.now, () => {
      if (this.isOpen) this[to].enter(run)
    })
  }

  healed(): void {
    if (this.held.length === 0 || this.network.isCut(this.near.name, this.far.name)) return
    const held = this.held
    this.held = []
    for (const { run, to } of held) this.deliver(to, run)
  }

  /** Both sides notice, each in its time. What is under way is lost. */
  break(): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.held = []
    this.network.recorder.count("brokenConnections")
    const { world } = this.network
    this.network.connections.delete(this)
    for (const side of ["near", "far"] as const) {
      world.after(world.random.between(0, hangUpMsMax), () => this[side].enter(this.onBroken[side]))
    }
  }
}
