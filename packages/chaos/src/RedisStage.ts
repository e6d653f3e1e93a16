/** A Redis that things happen to, at one address: a proxy leads to whatever server there is. */
import * as RedisServer from "@orrery/testing/RedisServer"
import { Effect, Redacted, Scope } from "effect"
import * as TcpProxy from "./TcpProxy.js"

export interface RedisStage {
  /** For the processes of the cluster. */
  readonly url: Redacted.Redacted<string>
  readonly proxy: TcpProxy.TcpProxy
  /** A command of the administrator. */
  readonly admin: (...words: ReadonlyArray<string>) => Effect.Effect<string>
  readonly kill: Effect.Effect<void>
  /** Another server, empty, in the place of the one there was. */
  readonly replace: Effect.Effect<void>
}

export const start = (
  random: () => number
): Effect.Effect<RedisStage, RedisServer.RedisServerFailed | TcpProxy.ProxyFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    let server = yield* RedisServer.start({})
    const password = new URL(Redacted.value(server.url)).password
    const target = { host: "127.0.0.1", port: server.port, random }
    const proxy = yield* TcpProxy.listen(target)
    return {
      url: Redacted.make(`redis://:${password}@127.0.0.1:${proxy.port}`),
      proxy,
      admin: (...words) => Effect.orDie(Effect.suspend(() => RedisServer.execute(server.url, ...words))),
      kill: Effect.suspend(() => server.stop("SIGKILL")),
      replace: RedisServer.start({ password: Redacted.make(password) }).pipe(
        Effect.tap((next) =>
          Effect.sync(() => {
            server = next
            target.port = next.port
          })
        ),
        Scope.extend(scope),
        Effect.orDie,
        Effect.asVoid
      )
    }
  })
