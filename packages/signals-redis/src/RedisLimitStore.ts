/**
 * Limits shared by all processes of a Redis: one script each, on Redis' own clock. Strict limits remember which server process
 * they were kept by; after a restart, a fail-over or a flush they grant nothing until what may have been granted before is over.
 */
import { LimitStore, LimitsUnavailable, type PermitRule, type RateRule } from "@orrery/core/LimitStore"
import { stepsPerWindow } from "@orrery/core/SlidingWindow"
import { Effect, Layer } from "effect"
import { RedisClients } from "./RedisClients.js"
import type { RedisUnavailable } from "./RedisConnection.js"
import * as RedisScripts from "./RedisScripts.js"

/** A limit nobody uses leaves Redis after this; the next use of a strict one then waits as on a new Redis. */
const ttlMs = 30 * 24 * 3_600_000

const unavailable = ({ operation, reason }: RedisUnavailable) => new LimitsUnavailable({ operation, reason })

const make = Effect.gen(function*() {
  const { commands, prefix } = yield* RedisClients

  // A limit over another time is another limit: the steps of its window are others.
  const rateKey = ({ exactness, name, perMs }: RateRule) => `${prefix}:limit:{${name}}:${exactness}:${perMs}`
  const permitKey = ({ name }: PermitRule) => `${prefix}:limit:{${name}}:permits`
  const permit = (script: RedisScripts.Script<RedisScripts.PermitAnswer>, rule: PermitRule, holder: string) =>
    RedisScripts.run(commands, script, [permitKey(rule)], [
      rule.limit,
      Math.ceil(rule.leaseMs * 1_000),
      holder,
      commands.serverId(),
      rule.exactness === "strict" ? 1 : 0,
      ttlMs
    ]).pipe(Effect.mapError(unavailable))

  return LimitStore.of({
    grant: (rule, { min, validMs, want }) => {
      const window = Math.ceil(rule.perMs * 1_000)
      const asked = rule.exactness === "strict"
        ? RedisScripts.run(commands, RedisScripts.slidingWindow, [rateKey(rule)], [
          ...[rule.limit, window, window / stepsPerWindow],
          ...[min, want, Math.ceil(validMs * 1_000)],
          ...[commands.serverId(), ttlMs]
        ])
        : RedisScripts.run(commands, RedisScripts.tokenBucket, [rateKey(rule)], [
          ...[rule.limit, window, rule.burst],
          ...[min, want]
        ])
      return Effect.mapError(asked, unavailable)
    },
    acquire: (rule, holder) => permit(RedisScripts.acquirePermit, rule, holder),
    renew: (rule, holder) => Effect.map(permit(RedisScripts.renewPermit, rule, holder), ({ isHeld }) => isHeld),
    release: (rule, holder) =>
      RedisScripts.run(commands, RedisScripts.releasePermit, [permitKey(rule)], [holder]).pipe(
        Effect.mapError(unavailable),
        Effect.asVoid
      )
  })
})

export const layer: Layer.Layer<LimitStore, never, RedisClients> = Layer.effect(LimitStore, make)
