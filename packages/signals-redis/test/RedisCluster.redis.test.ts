/** A real Redis Cluster of three primaries on one machine: the same contracts, by a user with no right too many. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Signals } from "@orrery/core/Signals"
import { endStoreContract } from "@orrery/testing/endStoreContract"
import { limitStoreContract } from "@orrery/testing/limitStoreContract"
import * as RedisServer from "@orrery/testing/RedisServer"
import { event, openWatch, sampleQueue } from "@orrery/testing/signalSamples"
import { signalsContract } from "@orrery/testing/signalsContract"
import { Context, Effect, Exit, Layer, Redacted, Schedule, Scope } from "effect"
import { randomBytes } from "node:crypto"
import { RedisClients } from "../src/RedisClients.js"
import type * as RedisConfig from "../src/RedisConfig.js"
import * as rig from "./redisRig.js"

const slots = [[0, 5_460], [5_461, 10_922], [10_923, 16_383]] as const

interface Started {
  readonly nodes: ReadonlyArray<RedisServer.RedisServer>
  readonly options: RedisConfig.Options
}

const start: Effect.Effect<Started, never, Scope.Scope> = Effect.gen(function*() {
  const secret = randomBytes(12).toString("hex")
  const password = Redacted.make(randomBytes(12).toString("hex"))
  const nodes = yield* Effect.forEach(slots, () => RedisServer.start({ isClusterNode: true, password }))
  const [first] = nodes
  for (const [at, node] of nodes.entries()) {
    yield* rig.restrict(node, secret)
    yield* RedisServer.execute(node.url, "CLUSTER", "ADDSLOTSRANGE", String(slots[at]![0]), String(slots[at]![1]))
    yield* RedisServer.execute(node.url, "CLUSTER", "SET-CONFIG-EPOCH", String(at + 1))
  }
  for (const node of nodes.slice(1)) {
    yield* RedisServer.execute(node.url, "CLUSTER", "MEET", "127.0.0.1", String(first.port), String(first.busPort))
  }
  yield* Effect.forEach(nodes, (node) =>
    RedisServer.execute(node.url, "CLUSTER", "INFO").pipe(
      Effect.repeat({
        until: (info) => info.includes("cluster_state:ok") && info.includes("cluster_known_nodes:3"),
        schedule: Schedule.spaced("50 millis")
      }),
      Effect.timeout("20 seconds")
    ), { concurrency: nodes.length })
  const options = {
    url: Redacted.make(`redis://orrery-node:${secret}@127.0.0.1:${first.port}`),
    clusterNodes: nodes.map(({ port }) => `127.0.0.1:${port}`).join(","),
    commandTimeoutMs: 3_000
  }
  return { nodes, options }
}).pipe(Effect.orDie)

/** One for all contracts: each test has names of its own. */
let shared: Started
const scope = Effect.runSync(Scope.make())
beforeAll(async () => {
  shared = await Effect.runPromise(Scope.extend(start, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const services = Layer.suspend(() => rig.services(shared.options))

signalsContract("redis cluster", services, rig.losses)
limitStoreContract("redis cluster", services, "refused for a window")
endStoreContract("redis cluster", services)

const until = (what: () => boolean) =>
  Effect.sync(what).pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("10 seconds")
  )

describe("a Redis Cluster", () => {
  it.scopedLive("loses the node that tells of changes, and goes on at another", () =>
    Effect.gen(function*() {
      const { nodes, options } = yield* start
      // Nobody stands in for a node that dies here; the slots of the others go on.
      for (const node of nodes) {
        yield* RedisServer.execute(node.url, "CONFIG", "SET", "cluster-require-full-coverage", "no")
      }
      const process = yield* rig.open({ ...options, commandTimeoutMs: 400 })
      const { subscriber } = Context.get(process, RedisClients)
      yield* until(() => subscriber.isUp())
      const queues = Array.from({ length: 30 }, sampleQueue)
      const watches = yield* Effect.provide(Effect.forEach(queues, (queue) => openWatch(queue)), process)
      for (const watch of watches) yield* watch.next

      // The first to be tried.
      yield* nodes[0]!.stop("SIGKILL")
      yield* until(() => subscriber.health().connects === 2)
      const events = queues.map(() => event())
      const signals = Context.get(process, Signals)
      const heard = new Set<string>()
      yield* Effect.forEach(watches, (watch) =>
        Effect.flatMap(watch.events(1), ({ events: [told] }) => Effect.sync(() => heard.add(told!.id))), {
        concurrency: 30
      }).pipe(Effect.ignore, Effect.forkScoped)
      for (const [at, queue] of queues.entries()) {
        signals.queue(queue).publish(() => [events[at]!])
      }

      // About two thirds of the queues have their numbers on the other nodes.
      yield* until(() =>
        heard.size >= 3
      )
      assert.isTrue([...heard].every((id) => events.some((each) => each.id === id)))
    }), 60_000)
})
