/**
 * Who keeps the limits that handlers of this process use (`RateLimiter.take`, `ConcurrencyLimiter.withPermit`) where no Redis does:
 * the cluster that it is a member of, a worker or a client; and a process that is in none, for itself.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import * as Limits from "./Limits.js"
import { LimitStore, LimitsUnavailable } from "./LimitStore.js"
import * as MemoryLimitStore from "./MemoryLimitStore.js"

export interface LimitKeeperService {
  /** Asks whoever keeps them at that moment. */
  readonly store: LimitStore["Type"]
  /** This process will be in a cluster: until it is, limits cannot be asked for. */
  readonly joins: Effect.Effect<void>
  /** From now until the scope closes. The last one counts; after all of them limits cannot be asked for. */
  readonly keptBy: (store: LimitStore["Type"]) => Effect.Effect<void, never, Scope.Scope>
}

/** `undefined`: limits of handlers are somebody else's matter, or nobody's. */
export class LimitKeeper extends Context.Reference<LimitKeeper>()("@orrery/core/LimitKeeper", {
  defaultValue: (): LimitKeeperService | undefined => undefined
}) {}

const away = (operation: string) =>
  new LimitsUnavailable({ operation, reason: "this process is not in its cluster yet, or not any more" })

const nobody = LimitStore.of({
  grant: () => away("grant"),
  acquire: () => away("acquire"),
  renew: () => away("renew"),
  release: () => away("release")
})

export const make: Effect.Effect<LimitKeeperService> = Effect.map(MemoryLimitStore.make, (alone) => {
  const keepers: Array<LimitStore["Type"]> = []
  let isJoining = false
  const ask = <A>(from: (store: LimitStore["Type"]) => Effect.Effect<A, LimitsUnavailable>) =>
    Effect.suspend(() => from(keepers.at(-1) ?? (isJoining ? nobody : alone)))
  return {
    store: LimitStore.of({
      grant: (rule, request) => ask((store) => store.grant(rule, request)),
      acquire: (rule, holder) => ask((store) => store.acquire(rule, holder)),
      renew: (rule, holder) => ask((store) => store.renew(rule, holder)),
      release: (rule, holder) => ask((store) => store.release(rule, holder))
    }),
    joins: Effect.sync(() => void (isJoining = true)),
    keptBy: (store) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => {
          isJoining = true
          keepers.push(store)
        }),
        () => Effect.sync(() => keepers.splice(keepers.lastIndexOf(store), 1))
      ))
  }
})

/** Limits for handlers, and where a cluster says that it keeps them. */
export const layer: Layer.Layer<Limits.Limits | LimitKeeper> = Layer.unwrapEffect(
  Effect.map(make, (keeper) =>
    Layer.merge(
      Layer.provide(Limits.layer, Layer.succeed(LimitStore, keeper.store)),
      Layer.succeed(LimitKeeper, keeper)
    ))
)

/** For what is built before the process is in its cluster. */
export const joining = <A, E, R>(layer: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.unwrapEffect(
    Effect.flatMap(LimitKeeper, (keeper) => Effect.as(keeper === undefined ? Effect.void : keeper.joins, layer))
  )

/** Where this process has a keeper: it is the store, until the scope closes. */
export const keptBy = (store: LimitStore["Type"]): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(LimitKeeper, (keeper) => keeper === undefined ? Effect.void : keeper.keptBy(store))
