/**
 * One TCP connection, cut into messages.
 *
 * A message is a header of 12 bytes (length of the body, u32; kind, u8; operation, u8; 2 bytes of zero; number of the
 * call, u32; little endian) and its body. Kind `rpc` carries the bytes of Effect RPC, the others the frames that runs
 * travel in (`FrameCalls`): on this path a call costs a small part of what one of Effect RPC does
 * (docs/decisions/0008), and a body in many pieces is put together once, not parsed again with each piece.
 *
 * Who connects sends `preface` first. A connection that sends anything else, or a message above `bodyBytesMax`, is
 * destroyed: nothing after it can be understood. The accepting side reads no more of a peer that leaves its answers
 * unread; the connecting side always reads, so the two never wait for each other. Nothing here throws into its caller.
 */
import type { Socket } from "node:net"

export const kinds = { rpc: 0, call: 1, answer: 2, failure: 3, push: 4 } as const
const kindMax = 4
/** Both sides must agree on it. */
export const bodyBytesMax = 32 * 1024 * 1024
/** What a peer may leave unread; beyond it nothing more is read of what it asks. */
const unreadBytesMax = 8 * bodyBytesMax
const headerBytes = 12
const callMax = 2 ** 32 - 1
const none = new Uint8Array(0)
/** "ORRY" and the version of the message header. */
export const preface = Uint8Array.of(0x4f, 0x52, 0x52, 0x59, 1)

export interface Listener {
  readonly message: (kind: number, operation: number, call: number, body: Uint8Array) => void
  /** Once, last of all. `reason` tells why when it was no orderly end. */
  readonly closed: (reason: string | undefined) => void
}

/** What connections hold together of messages that have not come to their end. */
export interface Unfinished {
  bytes: number
  readonly max: number
  /** Called when `bytes` is above `max`: something must go. */
  readonly full: () => void
}

/** The first bytes of a message. */
export const headerOf = (bodyBytes: number, kind: number, operation: number, call: number): Buffer => {
  const header = Buffer.allocUnsafe(headerBytes)
  header.writeUInt32LE(bodyBytes, 0)
  header[4] = kind
  header[5] = operation
  header.writeUInt16LE(0, 6)
  header.writeUInt32LE(call, 8)
  return header
}

export interface WireOptions {
  /** What a peer may leave unread. */
  readonly unreadMax?: number
  readonly unfinished?: Unfinished
}

export class Wire {
  private parts: Array<Uint8Array> = []
  private have = 0
  private need = headerBytes
  private reason: string | undefined
  private listener: Listener | undefined
  private isCorked = false
  /** Reasons not to read. */
  private holds = 0
  private isChoked = false
  /** How much of `unfinished` is this one's. */
  private counted = 0
  isOpen = true
  /** Complete messages received. */
  messages = 0
  /** What the other side did that it must not; that it was ended for. */
  offence: string | undefined

  constructor(
    private readonly socket: Socket,
    private readonly side: "connecting" | "accepting",
    private readonly options: WireOptions = {}
  ) {
    socket.setNoDelay(true)
    socket.on("error", (error) => this.reason ??= error.message)
    socket.on("close", () => this.end())
    if (side === "accepting") this.need = preface.length
    else socket.write(preface)
  }

  /** Messages are read from now on. */
  listen(listener: Listener): void {
    if (!this.isOpen) return listener.closed(this.reason)
    this.listener = listener
    this.socket.on("data", (chunk: Buffer) => this.receive(chunk))
    // Half-open connections are of no use to either side.
    this.socket.on("end", () => this.socket.end())
  }

  /** What is sent in one turn of the event loop leaves in one write. */
  send(kind: number, operation: number, call: number, body: Uint8Array = none): void {
    if (!this.isOpen) return
    if (body.length > bodyBytesMax) {
      return this.destroy(`a message of ${body.length} bytes is above the limit of ${bodyBytesMax}`)
    }
    if (!this.isCorked) {
      this.isCorked = true
      this.socket.cork()
      process.nextTick(() => {
        this.isCorked = false
        this.socket.uncork()
      })
    }
    this.socket.write(headerOf(body.length, kind, operation, call))
    if (body.length > 0) this.socket.write(body)
    const { unreadMax = unreadBytesMax } = this.options
    if (this.side === "accepting" && !this.isChoked && this.socket.writableLength > unreadMax) this.choke()
  }

  get isPaused(): boolean {
    return this.holds > 0
  }

  /** Bytes held of a message that has not come to its end. */
  get unfinishedBytes(): number {
    return this.have
  }

  /** Reads no more until `resume` is called as often. */
  pause(): void {
    this.holds += 1
    this.socket.pause()
  }

  resume(): void {
    this.holds -= 1
    if (this.holds === 0) this.socket.resume()
  }

  private choke(): void {
    this.isChoked = true
    this.pause()
    this.socket.once("drain", () => {
      this.isChoked = false
      this.resume()
    })
  }

  /** Ends the connection once what was sent has left. */
  close(): void {
    if (this.isOpen) this.socket.destroySoon()
  }

  /** For what the other side has sent. */
  destroy(offence: string): void {
    this.offence ??= offence
    this.reason ??= offence
    this.socket.destroy()
  }

  private end(): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.parts = []
    this.have = 0
    this.account()
    this.listener?.closed(this.reason)
  }

  private account(): void {
    const { unfinished } = this.options
    if (unfinished === undefined || this.have === this.counted) return
    unfinished.bytes += this.have - this.counted
    this.counted = this.have
    if (unfinished.bytes > unfinished.max) unfinished.full()
  }

  private receive(chunk: Uint8Array): void {
    // Bytes may be on their way here when the connection has been ended.
    if (!this.isOpen || this.socket.destroyed) return
    this.parts.push(chunk)
    this.have += chunk.length
    if (this.have < this.need) return this.account()
    const data = this.parts.length === 1
      ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
      : Buffer.concat(this.parts)
    let at = 0
    if (this.side === "accepting" && this.need === preface.length) {
      if (preface.some((byte, index) => data[index] !== byte)) {
        return this.destroy("what the other side speaks is not this protocol")
      }
      at = preface.length
    }
    this.need = headerBytes
    while (!this.socket.destroyed && data.length - at >= headerBytes) {
      const length = data.readUInt32LE(at)
      const kind = data[at + 4]!
      if (length > bodyBytesMax || kind > kindMax) {
        return this.destroy(`a message of kind ${kind} and ${length} bytes is not of this protocol`)
      }
      this.need = headerBytes + length
      if (data.length - at < this.need) break
      const body = data.subarray(at + headerBytes, at + this.need)
      const operation = data[at + 5]!
      const call = data.readUInt32LE(at + 8)
      at += this.need
      this.need = headerBytes
      this.messages += 1
      this.listener?.message(kind, operation, call, body)
    }
    this.parts = at < data.length ? [data.subarray(at)] : []
    this.have = data.length - at
    this.account()
  }
}

/** Numbers of the calls of one connection. They come round after four thousand million. */
export const nextCall = (call: number): number => call >= callMax ? 1 : call + 1
