/**
 * Signals, limits and ends of runs on Redis, put together. Each layer owns its connections and closes them with its scope.
 *
 *   layer         on given settings
 *   layerConfig   on those of the environment (`ORRERY_REDIS_...`); without a URL: none, and limits as `LimitKeeper` says
 */
import * as EndStore from "@orrery/core/EndStore"
import * as LimitKeeper from "@orrery/core/LimitKeeper"
import * as Limits from "@orrery/core/Limits"
import { LimitStore, SharedLimits } from "@orrery/core/LimitStore"
import type { ConfigInvalid } from "@orrery/core/Setting"
import * as Signals from "@orrery/core/Signals"
import { Effect, Layer } from "effect"
import * as RedisClients from "./RedisClients.js"
import * as RedisConfig from "./RedisConfig.js"
import * as RedisEndStore from "./RedisEndStore.js"
import * as RedisLimitStore from "./RedisLimitStore.js"
import * as RedisMetrics from "./RedisMetrics.js"
import * as RedisSignals from "./RedisSignals.js"

export type Services = Signals.Signals | Limits.Limits | SharedLimits | EndStore.EndStore

/** For handlers that use limiters, and for owners of queues whose tasks name them. */
const limits = Layer.merge(Limits.layer, Layer.effect(SharedLimits, LimitStore)).pipe(
  Layer.provide(RedisLimitStore.layer)
)

const signals = Layer.provideMerge(RedisMetrics.layer, RedisSignals.layer)

const onClients = Layer.mergeAll(signals, RedisEndStore.layer, limits).pipe(
  Layer.provide(RedisClients.layer)
)

/** Never waits for Redis: it connects in the background. */
export const layer = (options: RedisConfig.Options): Layer.Layer<Services, ConfigInvalid> =>
  Layer.provide(onClients, RedisConfig.layer(options))

/** What there is without Redis: no hints from other processes; limits are kept by the cluster, or within this process. */
export const layerNone: Layer.Layer<Services> = Layer.mergeAll(
  LimitKeeper.layer,
  Layer.succeed(Signals.Signals, Signals.none),
  Layer.succeed(SharedLimits, undefined),
  Layer.succeed(EndStore.EndStore, EndStore.none)
)

export const layerConfig: Layer.Layer<Services, ConfigInvalid> = Layer.unwrapEffect(
  Effect.map(
    RedisConfig.isConfigured,
    (isConfigured): Layer.Layer<Services, ConfigInvalid> =>
      isConfigured ? Layer.provide(onClients, RedisConfig.layerConfig) : layerNone
  )
)
