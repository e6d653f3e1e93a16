/** What strangers do to the data port of a node: bytes that mean nothing, and connections that do nothing. */
import { bodyBytesMax, kinds, preface } from "@orrery/api/Wire"
import { Effect } from "effect"
import { connect, type Socket } from "node:net"
import type { Random } from "@orrery/testing/Random"
import type { Scenario, Scene } from "../Scenario.js"
import { allSurvive } from "./processes.js"

const headerBytes = 12
const noiseBytesMax = 4_096
/** A connection that got this far without being ended is closed by us. */
const lingerMs = 300
const attacksAtOnce = 20
const attacksPerEvent = 200
const idleSockets = 150
const dripEveryMs = 50
const dripBytes = 60

const noise = (random: Random, length: number): Buffer =>
  Buffer.from(Array.from({ length }, () => random.integer(0, 255)))

const header = (length: number, kind: number, operation: number, call: number): Buffer => {
  const made = Buffer.alloc(headerBytes)
  made.writeUInt32LE(length, 0)
  made[4] = kind
  made[5] = operation
  made.writeUInt32LE(call, 8)
  return made
}

const message = (random: Random, kind: number, operation: number, body: Buffer): Buffer =>
  Buffer.concat([preface, header(body.length, kind, operation, random.integer(0, 1_000)), body])

/** What is sent, from the first byte on. */
const attacks: ReadonlyArray<(random: Random) => Buffer> = [
  (random) => noise(random, random.integer(1, noiseBytesMax)),
  (random) => Buffer.concat([preface, noise(random, random.integer(1, noiseBytesMax))]),
  // Promises more than it may, more than it sends, and nothing.
  () => Buffer.concat([preface, header(bodyBytesMax + 1, kinds.call, 0, 1)]),
  (random) => Buffer.concat([preface, header(bodyBytesMax, kinds.call, 0, 1), noise(random, noiseBytesMax)]),
  (random) => message(random, kinds.call, random.integer(0, 255), Buffer.alloc(0)),
  // Known calls with arguments that are none; answers nobody waits for; the bytes of another protocol in ours.
  (random) => message(random, kinds.call, random.integer(0, 5), noise(random, random.integer(1, 200))),
  (random) => message(random, kinds.answer, 0, noise(random, random.integer(1, 200))),
  (random) => message(random, kinds.push, 0, noise(random, random.integer(1, 200))),
  (random) => message(random, kinds.rpc, 0, noise(random, random.integer(1, noiseBytesMax))),
  () => Buffer.from("GET / HTTP/1.1\r\nHost: node\r\n\r\n")
]

const open = (scene: Scene) =>
  Effect.acquireRelease(
    Effect.async<Socket>((resume) => {
      const { dataPort } = scene.random.pick(scene.cluster.places)
      const socket = connect({ host: "127.0.0.1", port: dataPort })
      socket.on("error", () => resume(Effect.succeed(socket)))
      socket.once("connect", () => resume(Effect.succeed(socket)))
      socket.resume()
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const ended = (socket: Socket) =>
  Effect.async<void>((resume) => {
    if (socket.destroyed) resume(Effect.void)
    else socket.once("close", () => resume(Effect.void))
  }).pipe(Effect.timeoutOption(lingerMs))

const attack = (scene: Scene) =>
  Effect.scoped(Effect.gen(function*() {
    const socket = yield* open(scene)
    socket.write(scene.random.pick(attacks)(scene.random))
    yield* ended(socket)
  }))

/** One byte at a time, for as long as it takes. */
const drip = (scene: Scene) =>
  Effect.scoped(Effect.gen(function*() {
    const socket = yield* open(scene)
    const bytes = Buffer.concat([preface, noise(scene.random, dripBytes)])
    for (const byte of bytes) {
      if (socket.destroyed) return
      socket.write(Buffer.from([byte]))
      yield* Effect.sleep(dripEveryMs)
    }
  }))

const storm = (scene: Scene) =>
  Effect.scoped(Effect.gen(function*() {
    yield* Effect.forEach(Array.from({ length: idleSockets }), () => open(scene), { concurrency: attacksAtOnce })
    yield* Effect.forkScoped(Effect.forEach([1, 2, 3], () => drip(scene), { concurrency: 3 }))
    yield* Effect.forEach(Array.from({ length: attacksPerEvent }), () => attack(scene), {
      concurrency: attacksAtOnce,
      discard: true
    })
  }))

export const malformedFrames: Scenario = {
  name: "malformed-frames",
  catalogue: "T23",
  what: "noise, broken and half messages, idle and dripping connections on the data ports of all nodes",
  times: 4,
  quickTimes: 1,
  play: (scene) =>
    allSurvive(
      scene,
      Effect.gen(function*() {
        for (let n = 0; n < scene.times; n++) {
          yield* scene.event(`${attacksPerEvent} attacks, ${idleSockets} idle connections`, { inject: storm(scene) })
        }
      })
    )
}
