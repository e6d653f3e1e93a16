/**
 * The connections of a process, by role, so that none can hold another up:
 *
 *   commands     scripts and publications; those of one turn of the event loop travel together
 *   subscriber   channels, with their listeners; all are subscribed anew after a loss
 *   blocking     made on demand, one for whoever waits inside Redis
 */
import { Context, Effect, Layer, type Scope } from "effect"
import type { Redis } from "ioredis"
import { RedisConfig } from "./RedisConfig.js"
import * as Connection from "./RedisConnection.js"

/** Told each message as it came: bytes of anybody who may publish. */
export type Listener = (message: Buffer) => void

export interface Subscriber extends Pick<Connection.RedisConnection, "isUp" | "onChange" | "health"> {
  /**
   * Listens until the scope closes. When it answers, what is published from now on is heard, until the connection
   * is lost; it is heard again when `onChange` says so.
   */
  readonly subscribe: (
    channel: string,
    listener: Listener
  ) => Effect.Effect<void, Connection.RedisUnavailable, Scope.Scope>
}

export class RedisClients extends Context.Tag("@orrery/signals-redis/RedisClients")<RedisClients, {
  readonly commands: Connection.RedisConnection
  readonly subscriber: Subscriber
  /** Give `use` a time limit above the one inside the command. */
  readonly blocking: Effect.Effect<Connection.RedisConnection, never, Scope.Scope>
  readonly prefix: string
  readonly health: () => ReadonlyArray<Connection.ConnectionHealth>
}>() {}

/** Channels of one process. */
const channelsMax = 20_000

const makeSubscriber = Effect.gen(function*() {
  const config = yield* RedisConfig
  const channels = new Map<string, Set<Listener>>()
  const prepare = async (client: Redis): Promise<void> => {
    client.on("messageBuffer", (channel: Buffer, message: Buffer) => {
      for (const listener of channels.get(channel.toString()) ?? []) listener(message)
    })
    if (channels.size > 0) await client.subscribe(...channels.keys())
  }
  const connection = yield* Connection.make({ role: "subscriber", config, prepare })

  const add = (channel: string, listener: Listener) =>
    Effect.suspend(() => {
      let listeners = channels.get(channel)
      if (listeners === undefined) {
        if (channels.size >= channelsMax) {
          const reason = `${channels.size} channels are listened to, the most that may`
          return new Connection.RedisUnavailable({ operation: "subscribe", reason })
        }
        listeners = new Set()
        channels.set(channel, listeners)
      }
      listeners.add(listener)
      return Effect.succeed(listeners)
    })
  const drop = (channel: string, listener: Listener, listeners: Set<Listener>) =>
    Effect.suspend(() => {
      listeners.delete(listener)
      if (listeners.size > 0 || channels.get(channel) !== listeners) return Effect.void
      channels.delete(channel)
      return connection.isUp()
        ? Effect.ignore(connection.use("unsubscribe", (client) => client.unsubscribe(channel)))
        : Effect.void
    })

  const subscriber: Subscriber = {
    isUp: connection.isUp,
    onChange: connection.onChange,
    health: connection.health,
    subscribe: (channel, listener) =>
      Effect.acquireRelease(add(channel, listener), (listeners) => drop(channel, listener, listeners)).pipe(
        Effect.zipRight(connection.use("subscribe", (client) => client.subscribe(channel))),
        Effect.asVoid
      )
  }
  return subscriber
})

const make = Effect.gen(function*() {
  const config = yield* RedisConfig
  const subscriber = yield* makeSubscriber
  const commands = yield* Connection.make({ role: "commands", config })
  return RedisClients.of({
    commands,
    subscriber,
    blocking: Connection.make({ role: "blocking", config }),
    prefix: config.prefix,
    health: () => [commands.health(), subscriber.health()]
  })
})

/** Connects in the background: it is there at once, also when Redis is not. Closing it waits for answers under way. */
export const layer: Layer.Layer<RedisClients, never, RedisConfig> = Layer.scoped(RedisClients, make)
