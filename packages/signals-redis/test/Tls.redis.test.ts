/** Redis by TLS: certificates made for each test, a real handshake in front of a real server. */
import { assert, describe, it } from "@effect/vitest"
import { Signals } from "@orrery/core/Signals"
import { event, openWatch, sampleQueue } from "@orrery/testing/signalSamples"
import { Context, Effect, Redacted, Schedule, type Scope } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { type AddressInfo, connect, type Socket } from "node:net"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { createServer } from "node:tls"
import { generate, type SubjectAltNameEntry } from "selfsigned"
import { RedisClients } from "../src/RedisClients.js"
import * as rig from "./redisRig.js"

const here: ReadonlyArray<SubjectAltNameEntry> = [{ type: 2, value: "localhost" }, { type: 7, ip: "127.0.0.1" }]

/** What it is for, and nobody vouches for it but itself. */
const certificate = (names: ReadonlyArray<SubjectAltNameEntry>) =>
  Effect.promise(() =>
    generate([{ name: "commonName", value: "redis" }], {
      keyType: "ec",
      algorithm: "sha256",
      extensions: [{ name: "subjectAltName", altNames: [...names] }]
    })
  )

/** Speaks TLS, and plainly to the server. Answers how many bytes came through it from clients. */
const front = ({ cert, key, port }: { readonly cert: string; readonly key: string; readonly port: number }) =>
  Effect.gen(function*() {
    let bytes = 0
    const sockets = new Set<Socket>()
    const server = createServer({ cert, key }, (client) => {
      const behind = connect({ host: "127.0.0.1", port })
      for (const [socket, other] of [[client, behind], [behind, client]] as const) {
        sockets.add(socket)
        socket.on("error", () => other.destroy())
        socket.on("close", () => void sockets.delete(socket))
      }
      client.on("data", (chunk: Buffer) => {
        bytes += chunk.length
      })
      client.pipe(behind).pipe(client)
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          server.close()
        })
    )
    return { port: (server.address() as AddressInfo).port, bytes: () => bytes }
  })

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(path.join(tmpdir(), "orrery-tls-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

/** A server behind TLS, and the file of the authority that vouches for it: not there until it is written. */
const stand = (names: ReadonlyArray<SubjectAltNameEntry> = here) =>
  Effect.gen(function*() {
    const redis = yield* rig.start()
    const { cert, private: key } = yield* certificate(names)
    const tls = yield* front({ cert, key, port: redis.server.port })
    const caFile = path.join(yield* folder, "authority.pem")
    const urlAt = (host: string) =>
      Redacted.make(Redacted.value(redis.urlAt(tls.port)).replace("redis://", "rediss://").replace("127.0.0.1", host))
    return { caFile, urlAt, bytes: tls.bytes, write: Effect.sync(() => writeFileSync(caFile, cert)) }
  })

const until = (what: () => boolean) =>
  Effect.sync(what).pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("10 seconds")
  )
const clientsOf = (process: Context.Context<rig.Services>) => Context.get(process, RedisClients)
const untilUp = (process: Context.Context<rig.Services>) =>
  until(() => clientsOf(process).health().every(({ isUp }) => isUp))

/** Why it cannot connect, each of its connections. */
const refusedWith = (process: Context.Context<rig.Services>, reason: RegExp) =>
  until(() => clientsOf(process).health().every(({ isUp, lastError }) => !isUp && reason.test(lastError ?? "")))

describe.concurrent("Redis by TLS", () => {
  const works = (process: Context.Context<rig.Services>): Effect.Effect<void, unknown, Scope.Scope> =>
    Effect.gen(function*() {
      yield* untilUp(process)
      const queue = sampleQueue()
      const watch = yield* Effect.provide(openWatch(queue), process)
      yield* watch.next
      const told = event()
      Context.get(process, Signals).queue(queue).publish(() => [told])
      assert.deepStrictEqual((yield* watch.events(1)).events, [told])
    })

  for (const host of ["localhost", "127.0.0.1"]) {
    it.scopedLive(`works, with an authority of one's own, by ${host}`, () =>
      Effect.gen(function*() {
        const { caFile, urlAt, write } = yield* stand()
        yield* write
        yield* works(yield* rig.open({ url: urlAt(host), caFile }))
      }))
  }

  it.scopedLive("reads the authorities at each connection, and says why it cannot", () =>
    Effect.gen(function*() {
      const { caFile, urlAt, write } = yield* stand()
      const process = yield* rig.open({ url: urlAt("localhost"), caFile })
      yield* refusedWith(process, /ENOENT.*authority\.pem/)
      yield* write
      yield* works(process)
    }))

  it.scopedLive("tells nothing, least of all the password, to a server that nobody vouches for", () =>
    Effect.gen(function*() {
      const { bytes, urlAt } = yield* stand()
      const process = yield* rig.open({ url: urlAt("localhost") })
      yield* refusedWith(process, /self-signed certificate/)
      assert.strictEqual(bytes(), 0)
    }))

  it.scopedLive("tells nothing to a server with the certificate of another", () =>
    Effect.gen(function*() {
      const { bytes, caFile, urlAt, write } = yield* stand([{ type: 2, value: "redis.example" }])
      yield* write
      const process = yield* rig.open({ url: urlAt("localhost"), caFile })
      yield* refusedWith(process, /does not match certificate's altnames/)
      assert.strictEqual(bytes(), 0)
    }))
})
