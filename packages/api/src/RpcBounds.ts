/**
 * Bounds the calls of Effect RPC that one connection may have under way. Its server makes a fiber for each, whatever waits
 * already, so a flood on one connection would fill the memory of all.
 */
import { RpcSerialization } from "@effect/rpc"
import { Effect, Layer } from "effect"
import { serialization } from "./NodeConnection.js"

/** Calls of one connection. Beyond it the connection is ended: nothing after it could be answered in time. */
export const rpcCallsMax = 16_384

type Serialization = RpcSerialization.RpcSerialization["Type"]
type Parser = ReturnType<Serialization["unsafeMake"]>

/** Of this class the server knows that the connection cannot go on. */
class TooManyCalls extends RpcSerialization.RpcSerializationError {
  override get message() {
    return `${this.bufferSize} calls under way, the limit of a connection is ${this.maxBufferSize}`
  }
}

const tagOf = (message: unknown): unknown =>
  typeof message === "object" && message !== null && "_tag" in message ? message._tag : undefined

const bounded = (parser: Parser, callsMax: number): Parser => {
  let underWay = 0
  return {
    decode: (bytes) => {
      const messages = parser.decode(bytes)
      for (const message of messages) if (tagOf(message) === "Request") underWay += 1
      if (underWay <= callsMax) return messages
      throw new TooManyCalls({ reason: "BufferSizeExceeded", maxBufferSize: callsMax, bufferSize: underWay })
    },
    encode: (response) => {
      if (tagOf(response) === "Exit") underWay -= 1
      return parser.encode(response)
    }
  }
}

/** A parser is made per connection; what it throws ends that connection. */
export const boundedBy = (callsMax: number) => (inner: Serialization): Serialization =>
  RpcSerialization.RpcSerialization.of({ ...inner, unsafeMake: () => bounded(inner.unsafeMake(), callsMax) })

/** What a node serves with. */
export const layer: Layer.Layer<RpcSerialization.RpcSerialization> = Layer.effect(
  RpcSerialization.RpcSerialization,
  Effect.map(RpcSerialization.RpcSerialization, boundedBy(rpcCallsMax))
).pipe(Layer.provide(serialization))
