/** A Redis as Orrery is meant to find it: a user that may do what it needs and nothing else. */
import type { EndStore } from "@orrery/core/EndStore"
import * as Limits from "@orrery/core/Limits"
import type { LimitStore } from "@orrery/core/LimitStore"
import type { Signals } from "@orrery/core/Signals"
import * as RedisServer from "@orrery/testing/RedisServer"
import { type Context, Effect, Layer, Redacted, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import * as RedisAcl from "../src/RedisAcl.js"
import * as RedisClients from "../src/RedisClients.js"
import * as RedisConfig from "../src/RedisConfig.js"
import * as RedisEndStore from "../src/RedisEndStore.js"
import * as RedisLimitStore from "../src/RedisLimitStore.js"
import * as RedisSignals from "../src/RedisSignals.js"

export const prefix = "orrery-test"

export interface Rig {
  readonly server: RedisServer.RedisServer
  /** Of the user with the rights of `RedisAcl`. */
  readonly url: Redacted.Redacted<string>
  /** The same through another port, as of a proxy. */
  readonly urlAt: (port: number) => Redacted.Redacted<string>
  /** As the administrator of the server. */
  readonly admin: (...words: ReadonlyArray<string>) => Effect.Effect<string>
}

const userName = "orrery-node"

export const restrict = (
  server: RedisServer.RedisServer,
  secret: string,
  rules: ReadonlyArray<string> = RedisAcl.rules(prefix)
) => Effect.orDie(RedisServer.execute(server.url, "ACL", "SETUSER", userName, "on", `>${secret}`, ...rules))

export const start = (options: RedisServer.RedisServerOptions = {}): Effect.Effect<Rig, never, Scope.Scope> =>
  Effect.gen(function*() {
    const server = yield* RedisServer.start(options)
    const secret = randomBytes(12).toString("hex")
    yield* restrict(server, secret)
    const urlAt = (port: number) => Redacted.make(`redis://${userName}:${secret}@127.0.0.1:${port}`)
    return {
      server,
      url: urlAt(server.port),
      urlAt,
      admin: (...words) => Effect.orDie(RedisServer.execute(server.url, ...words))
    } satisfies Rig
  }).pipe(Effect.orDie)

export type Services =
  | Signals
  | EndStore
  | RedisSignals.RedisSignalsCounters
  | RedisClients.RedisClients
  | LimitStore
  | Limits.Limits

export const services = (options: RedisConfig.Options): Layer.Layer<Services> =>
  Layer.mergeAll(RedisSignals.layer, RedisEndStore.layer, Layer.provideMerge(Limits.layer, RedisLimitStore.layer)).pipe(
    Layer.provideMerge(RedisClients.layer),
    Layer.provide(RedisConfig.layer({ prefix, ...options })),
    Layer.orDie
  )

/** For `signalsContract`: how often anything was lost, or a gap told to be safe. */
export const losses = Effect.map(RedisSignals.RedisSignalsCounters, (counters) => {
  const { failed, gaps, safetyGaps } = counters()
  return failed + gaps + safetyGaps
})

/** A machine that runs other tests too answers late: only what is about that goes by the time limit that is usual. */
const commandTimeoutMs = 3_000

/** Those of one process, with connections of their own. */
export const open = (options: RedisConfig.Options): Effect.Effect<Context.Context<Services>, never, Scope.Scope> =>
  Layer.build(services({ commandTimeoutMs, ...options }))

/** On a server of its own. */
export const layer = (options: RedisServer.RedisServerOptions = {}): Layer.Layer<Services> =>
  Layer.unwrapScoped(Effect.map(start(options), ({ url }) => services({ url, commandTimeoutMs })))
