/** A real primary, replica and sentinel: the sentinel promotes, and the clients follow it without a proxy between. */
import { describe, it } from "@effect/vitest"
import * as TcpProxy from "@orrery/chaos/TcpProxy"
import * as RedisServer from "@orrery/testing/RedisServer"
import { Effect, Redacted, Schedule, type Scope } from "effect"
import { assertUnharmed, duringFault } from "./faultStand.js"
import * as rig from "./redisRig.js"

const name = "orrery-primary"
const timeout = 90_000

const secretOf = (url: Redacted.Redacted<string>): string => new URL(Redacted.value(url)).password

const untilSaid = (url: Redacted.Redacted<string>, words: ReadonlyArray<string>, what: RegExp) =>
  RedisServer.execute(url, ...words).pipe(
    Effect.repeat({ until: (answer) => what.test(answer), schedule: Schedule.spaced("50 millis") }),
    // A primary that becomes a replica hangs up on everybody.
    Effect.retry(Schedule.spaced("50 millis")),
    Effect.timeout("20 seconds")
  )

interface Guarded {
  readonly sentinel: RedisServer.RedisServer
  readonly replica: RedisServer.RedisServer
}

/** A replica that has everything, and a sentinel that knows both. */
const guard = (redis: rig.Rig): Effect.Effect<Guarded, unknown, Scope.Scope> =>
  Effect.gen(function*() {
    const password = Redacted.make(secretOf(redis.server.url))
    // When it comes back, it is a replica.
    yield* redis.admin("CONFIG", "SET", "masterauth", Redacted.value(password))
    const replica = yield* RedisServer.start({
      password,
      settings: [
        `replicaof 127.0.0.1 ${redis.server.port}`,
        `masterauth ${Redacted.value(password)}`,
        "repl-diskless-sync-delay 0"
      ]
    })
    yield* rig.restrict(replica, secretOf(redis.url))
    yield* untilSaid(replica.url, ["INFO", "replication"], /master_link_status:up/)
    const sentinel = yield* RedisServer.start({
      sentinelOf: { name, port: redis.server.port, password, downAfterMs: 500 }
    })
    yield* untilSaid(sentinel.url, ["SENTINEL", "replicas", name], new RegExp(`\\b${replica.port}\\b`))
    return { sentinel, replica }
  })

const promoted = ({ replica, sentinel }: Guarded) =>
  untilSaid(sentinel.url, ["SENTINEL", "get-master-addr-by-name", name], new RegExp(`\\b${replica.port}\\b`))

describe.concurrent("Redis behind a sentinel", () => {
  const followed = (
    title: string,
    fault: (redis: rig.Rig, guarded: Guarded) => Effect.Effect<unknown, unknown, Scope.Scope>,
    sentinelsOf: (guarded: Guarded) => Effect.Effect<string, unknown, Scope.Scope>
  ) =>
    it.scopedLive(title, () =>
      Effect.gen(function*() {
        let guarded: Guarded | undefined
        const seen = yield* duringFault(({ rig: redis }) => fault(redis, guarded!), {
          connect: (redis) =>
            Effect.gen(function*() {
              guarded = yield* guard(redis)
              return { url: redis.urlAt(1), sentinels: yield* sentinelsOf(guarded), sentinelName: name }
            })
        })
        assertUnharmed(title, seen)
      }), timeout)

  followed(
    "bears the death of the primary: the sentinel promotes the replica, and the clients go there",
    (redis, guarded) => Effect.zipRight(redis.server.stop("SIGKILL"), promoted(guarded)),
    ({ sentinel }) => Effect.succeed(`127.0.0.1:${sentinel.port}`)
  )

  followed(
    "bears a primary that becomes a replica under it, and a first sentinel that never answers",
    (redis, guarded) =>
      RedisServer.execute(guarded.sentinel.url, "SENTINEL", "failover", name).pipe(
        Effect.zipRight(promoted(guarded)),
        Effect.zipRight(untilSaid(redis.server.url, ["INFO", "replication"], /role:slave/))
      ),
    ({ sentinel }) =>
      Effect.gen(function*() {
        const silent = yield* TcpProxy.listen({ host: "127.0.0.1", port: sentinel.port, random: () => 0.5 })
        silent.set({ _tag: "blackhole", ways: ["toServer", "toClient"] })
        return `127.0.0.1:${silent.port},127.0.0.1:${sentinel.port}`
      })
  )
})
