/**
 * What the connections of a node may take together, and for how long one may be silent: so that a flood, a slow sender, or
 * one that never says anything costs its own connection and not the node.
 *
 *   too many        one more is told so (a failure of call 0, which no call has) and closed
 *   silent          no complete message for `silentMsMax`: both ends of Effect RPC ping every 10 s, so nobody is there
 *   half messages   when all that is unfinished passes `unfinishedBytesMax`, the largest is given up
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import type { Socket } from "node:net"
import * as FrameCalls from "./FrameCalls.js"
import { bodyBytesMax, headerOf, kinds, type Unfinished, type Wire } from "./Wire.js"

export interface GuardOptions {
  /** Connections at a time. */
  readonly connectionsMax: number
  /** A connection without a complete message for this long is ended. */
  readonly silentMsMax: number
  /** Bytes of messages that have begun and not ended, over all connections. */
  readonly unfinishedBytesMax: number
}

export const guardDefaults: GuardOptions = {
  connectionsMax: 12_000,
  // Three pings; a client whose process stands still for longer connects again.
  silentMsMax: 30_000,
  unfinishedBytesMax: 8 * bodyBytesMax
}

/** Connections that are being told of their refusal. More are dropped without a word. */
const refusedMax = 256

interface Watched {
  /** Complete messages when it was last looked at. */
  messages: number
  /** Monotonic ms: since when there has been no more. */
  since: number
}

export class ConnectionGuard {
  private readonly watched = new Map<Wire, Watched>()
  private readonly refused = new Set<Socket>()
  readonly unfinished: Unfinished
  constructor(
    private readonly options: GuardOptions,
    private readonly monotonic: () => number = () => performance.now()
  ) {
    this.unfinished = { bytes: 0, max: options.unfinishedBytesMax, full: () => this.giveUpLargest() }
  }

  get connectionCount(): number {
    return this.watched.size
  }

  /** False: it has been refused, and is nobody's business any more. */
  admits(socket: Socket): boolean {
    if (this.watched.size < this.options.connectionsMax) return true
    socket.on("error", () => undefined)
    if (this.refused.size >= refusedMax) socket.destroy()
    else {
      this.refused.add(socket)
      socket.on("close", () => this.refused.delete(socket))
      // Read and thrown away: a close with something unread resets the connection before the word has arrived.
      socket.resume()
      const reason = `the node serves as many connections as it may (${this.options.connectionsMax})`
      const body = FrameCalls.pack(FrameCalls.encodeRefusal(new ClusterUnavailable({ operation: "connect", reason })))
      socket.write(headerOf(body.length, kinds.failure, 0, 0))
      socket.end(body)
    }
    return false
  }

  add(wire: Wire): void {
    this.watched.set(wire, { messages: wire.messages, since: this.monotonic() })
  }

  delete(wire: Wire): void {
    this.watched.delete(wire)
  }

  /** Ends what has been silent for too long. Call it a few times per `silentMsMax`. */
  sweep(): void {
    const now = this.monotonic()
    for (const [wire, seen] of this.watched) {
      // What is not read cannot be heard.
      if (wire.messages !== seen.messages || wire.isPaused) {
        seen.messages = wire.messages
        seen.since = now
      } else if (now - seen.since > this.options.silentMsMax) {
        wire.destroy(`no complete message in ${Math.round((now - seen.since) / 1000)} s`)
      }
    }
    for (const socket of this.refused) socket.destroy()
  }

  private giveUpLargest(): void {
    let largest: Wire | undefined
    for (const wire of this.watched.keys()) {
      if (largest === undefined || wire.unfinishedBytes > largest.unfinishedBytes) largest = wire
    }
    largest?.destroy(
      `an unfinished message of ${largest.unfinishedBytes} bytes, and those of all are above ${this.unfinished.max}`
    )
  }
}
