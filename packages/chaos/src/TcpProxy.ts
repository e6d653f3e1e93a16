/**
 * One link that can be made bad: a TCP proxy in front of a server.
 *
 *   pass        as if it were not there
 *   blackhole   one way or both: what was sent is held, and comes when the link heals, as TCP would send it again; a new
 *               connection is accepted and leads nowhere. Neither side learns that the other is gone
 *   delay       each chunk by `ms` and up to `jitterMs` more, in order
 *   throttle    so many bytes a second, each way
 *   reset       connections are broken, new ones at once
 *
 * and once: `corruptByte`, `halfClose`, and `loseAnswerTo` (the connection breaks between a request and its answer).
 *
 * What it holds is bounded: beyond `heldBytesMax` per direction the sender waits in its own socket.
 */
import { Data, Deferred, Effect, type Scope } from "effect"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"

export type Way = "toServer" | "toClient"

export type Mode =
  | { readonly _tag: "pass" }
  | { readonly _tag: "blackhole"; readonly ways: ReadonlyArray<Way> }
  | { readonly _tag: "delay"; readonly ms: number; readonly jitterMs: number }
  | { readonly _tag: "throttle"; readonly bytesPerSecond: number }
  | { readonly _tag: "reset" }

export interface TcpProxyOptions {
  /** Of the server. */
  readonly host: string
  readonly port: number
  /** In [0, 1): jitter, and which byte is corrupted. */
  readonly random: () => number
}

export interface TcpProxy {
  /** On 127.0.0.1. */
  readonly port: number
  /** For the connections there are and those to come. */
  readonly set: (mode: Mode) => void
  /** Flips one bit of the next chunk that goes this way. */
  readonly corruptByte: (way: Way) => void
  /** Tells the receiver of this way that nothing more comes, on every connection; the other way goes on. */
  readonly halfClose: (way: Way) => void
  /** The next request that contains `text` reaches the server; its answer is lost with the connection. Completes then. */
  readonly loseAnswerTo: (text: string) => Effect.Effect<void>
  readonly connections: () => number
}

export class ProxyFailed extends Data.TaggedError("ProxyFailed")<{ readonly cause: Error }> {
  override get message() {
    return `the proxy cannot listen: ${this.cause.message}`
  }
}

/** Marks the proxy's own connections, which are never led through a proxy (`preload.mjs`). */
const direct = { [Symbol.for("@orrery/chaos/direct")]: true }
const host = "127.0.0.1"
const heldBytesMax = 1024 * 1024

interface State {
  readonly options: TcpProxyOptions
  readonly links: Set<Link>
  mode: Mode
  corrupt: Way | undefined
  losing: { readonly text: string; readonly done: Deferred.Deferred<void> } | undefined
}

/** Listens until the scope closes; its connections break with it. */
export const listen = (options: TcpProxyOptions): Effect.Effect<TcpProxy, ProxyFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const state: State = {
      options,
      links: new Set(),
      mode: { _tag: "pass" },
      corrupt: undefined,
      losing: undefined
    }
    const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (client) => {
      // A socket that is reset may tell so before anyone listens.
      client.on("error", () => undefined)
      if (state.mode._tag === "reset") client.resetAndDestroy()
      else state.links.add(new Link(state, client))
    })
    yield* Effect.acquireRelease(
      Effect.async<void, ProxyFailed>((resume) => {
        server.once("error", (cause) => resume(new ProxyFailed({ cause })))
        server.listen(0, host, () => resume(Effect.void))
      }),
      () =>
        Effect.async<void>((resume) => {
          server.close(() => resume(Effect.void))
          for (const link of state.links) link.reset()
        })
    )
    const set = (mode: Mode): void => {
      state.mode = mode
      for (const link of [...state.links]) {
        if (mode._tag === "reset") link.reset()
        else link.update()
      }
    }
    return {
      port: (server.address() as AddressInfo).port,
      set,
      corruptByte: (way) => void (state.corrupt = way),
      halfClose: (way) => {
        for (const link of state.links) link.halfClose(way)
      },
      loseAnswerTo: (text) =>
        Effect.flatMap(Deferred.make<void>(), (done) => {
          state.losing = { text, done }
          return Effect.onInterrupt(Deferred.await(done), () => Effect.sync(() => state.losing = undefined))
        }),
      connections: () => state.links.size
    }
  })

const isHeld = ({ mode }: State, way: Way): boolean => mode._tag === "blackhole" && mode.ways.includes(way)

/** One connection of a client, and ours to the server. */
class Link {
  private server: Socket | undefined
  private readonly lanes: Array<Lane> = []
  /** The answer to what was sent last is to be lost. */
  private losing: Deferred.Deferred<void> | undefined
  private isBroken = false

  constructor(private readonly state: State, private readonly client: Socket) {
    client.on("error", () => this.broken())
    client.on("close", () => this.closed())
    this.update()
  }

  /** The mode has changed. */
  update(): void {
    if (this.server === undefined && !isHeld(this.state, "toServer")) this.open()
    if (this.isBroken) this.broken()
    for (const lane of this.lanes) lane.pump()
  }

  reset(): void {
    this.state.links.delete(this)
    for (const lane of this.lanes) lane.stop()
    for (const socket of [this.client, this.server]) if (socket?.destroyed === false) socket.resetAndDestroy()
  }

  halfClose(way: Way): void {
    const to = way === "toServer" ? this.server : this.client
    to?.end()
  }

  /** What becomes of a chunk on its way: itself, changed, or nothing. */
  pass(way: Way, chunk: Buffer): Buffer | undefined {
    const { state } = this
    if (way === "toServer" && state.losing !== undefined && chunk.includes(state.losing.text)) {
      this.losing = state.losing.done
      state.losing = undefined
    } else if (way === "toClient" && this.losing !== undefined) {
      Deferred.unsafeDone(this.losing, Effect.void)
      this.reset()
      return undefined
    }
    if (state.corrupt !== way) return chunk
    state.corrupt = undefined
    const changed = Buffer.from(chunk)
    changed[Math.floor(state.options.random() * changed.length)]! ^= 1 << Math.floor(state.options.random() * 8)
    return changed
  }

  private open(): void {
    const { host, port } = this.state.options
    const server = connect({ host, port, noDelay: true, allowHalfOpen: true, ...direct })
    this.server = server
    server.on("error", () => this.broken())
    server.on("close", () => this.closed())
    this.lanes.push(
      new Lane(this.state, this, "toServer", this.client, server),
      new Lane(this.state, this, "toClient", server, this.client)
    )
  }

  /** A link that leads nowhere does not tell of the other side's end either. */
  private broken(): void {
    this.isBroken = true
    if (this.state.mode._tag !== "blackhole") this.reset()
  }

  private closed(): void {
    if (this.client.destroyed && this.server?.destroyed !== false) this.state.links.delete(this)
    else if (this.isBroken) this.broken()
  }
}

/** One direction of one connection. */
class Lane {
  /** `undefined`: the end. */
  private readonly waiting: Array<{ readonly at: number; readonly chunk: Buffer | undefined }> = []
  private heldBytes = 0
  private lastAt = 0
  private timer: NodeJS.Timeout | undefined

  constructor(
    private readonly state: State,
    private readonly link: Link,
    private readonly way: Way,
    private readonly from: Socket,
    private readonly to: Socket
  ) {
    from.on("data", (chunk: Buffer) => this.take(chunk))
    from.on("end", () => this.take(undefined))
    to.on("drain", () => this.pump())
    this.pump()
  }

  stop(): void {
    clearTimeout(this.timer)
    this.waiting.length = 0
  }

  /** Passes on what is due, and reads on or not. */
  pump(): void {
    clearTimeout(this.timer)
    const held = isHeld(this.state, this.way)
    const isLate = this.state.mode._tag === "delay" || this.state.mode._tag === "throttle"
    while (!held && this.waiting.length > 0 && !this.to.writableNeedDrain) {
      const wait = this.waiting[0]!.at - performance.now()
      if (isLate && wait > 0) {
        this.timer = setTimeout(() => this.pump(), wait)
        break
      }
      const { chunk } = this.waiting.shift()!
      this.heldBytes -= chunk?.length ?? 0
      if (chunk === undefined) this.to.end()
      else if (!this.write(chunk)) return
    }
    if (held || this.heldBytes > heldBytesMax) this.from.pause()
    else this.from.resume()
  }

  private write(chunk: Buffer): boolean {
    const passed = this.link.pass(this.way, chunk)
    if (passed === undefined) return false
    if (this.to.writable) this.to.write(passed)
    return true
  }

  private take(chunk: Buffer | undefined): void {
    this.lastAt = Math.max(this.lastAt, performance.now()) + this.spacing(chunk?.length ?? 0)
    this.waiting.push({ at: this.lastAt + this.delay(), chunk })
    this.heldBytes += chunk?.length ?? 0
    this.pump()
  }

  private spacing(bytes: number): number {
    const { mode } = this.state
    return mode._tag === "throttle" ? bytes / mode.bytesPerSecond * 1_000 : 0
  }

  private delay(): number {
    const { mode, options } = this.state
    return mode._tag === "delay" ? mode.ms + options.random() * mode.jitterMs : 0
  }
}
