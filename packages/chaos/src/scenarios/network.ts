/** What happens between processes: slow, cut, one-way, flapping links, and answers that get lost. */
import { Effect } from "effect"
import type { LinkKind } from "../Links.js"
import type { Scenario, Scene } from "../Scenario.js"
import type { Mode, Way } from "../TcpProxy.js"
import { allSurvive, inTurn } from "./processes.js"

const both: ReadonlyArray<Way> = ["toServer", "toClient"]
const pass: Mode = { _tag: "pass" }
const blackhole = (ways: ReadonlyArray<Way> = both): Mode => ({ _tag: "blackhole", ways })

const set = (scene: Scene, which: Parameters<Scene["links"]["find"]>[0], mode: Mode) =>
  Effect.sync(() => {
    for (const { proxy } of scene.links.find(which)) proxy.set(mode)
  })

const slow: Mode = { _tag: "delay", ms: 100, jitterMs: 400 }
const tooSlow: Mode = { _tag: "delay", ms: 2_000, jitterMs: 0 }
const thin: Mode = { _tag: "throttle", bytesPerSecond: 200_000 }
const slowMs = 12_000

export const slowPostgres: Scenario = {
  name: "slow-postgres",
  catalogue: "T09",
  what: "the way to PostgreSQL takes 0.1 to 0.5 s longer, then 2 s, then is thin",
  setting: { links: ["postgres"] },
  times: 3,
  quickTimes: 3,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const mode = inTurn([slow, tooSlow, thin], n)
        yield* scene.event(`the links to PostgreSQL: ${JSON.stringify(mode)}`, {
          inject: Effect.zipRight(set(scene, { kind: "postgres" }, mode), Effect.sleep(slowMs)),
          repair: set(scene, { kind: "postgres" }, pass)
        })
      }
    })
}

/** Longer than any lease of a lock, and than the 10 s of a statement. */
const cutMs = 15_000

export const blackholePostgres: Scenario = {
  name: "blackhole-postgres",
  catalogue: "T10, T16",
  what: "one node after the other is cut off from PostgreSQL, in one way or both, without a word",
  setting: { links: ["postgres"] },
  times: 3,
  quickTimes: 1,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const { name } = inTurn(scene.cluster.nodes, n)
        const ways = inTurn([both, ["toClient"], ["toServer"]] as const, n)
        const began = performance.now()
        yield* scene.event(`${name} is cut off from PostgreSQL, ${ways.join(" and ")}`, {
          inject: set(scene, { from: name, kind: "postgres" }, blackhole(ways))
        })
        yield* Effect.sleep(Math.max(0, cutMs - (performance.now() - began)))
        yield* set(scene, { from: name, kind: "postgres" }, pass)
        yield* scene.healed(`${name} reaches PostgreSQL again`)
      }
    })
}

/** What the journal's statements are called on the wire. */
const commitName = "orrery_commit_"
/** Every node commits many times a second. */
const commitWithin = "20 seconds"

export const lostCommitAnswer: Scenario = {
  name: "lost-commit-answer",
  catalogue: "T13",
  what: "the connection breaks between a commit and its answer, at one node after the other",
  setting: { links: ["postgres"] },
  times: 12,
  quickTimes: 3,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const { name } = inTurn(scene.cluster.nodes, n)
        const [link] = scene.links.find({ from: name, kind: "postgres" })
        yield* scene.event(`${name} loses the answer to a commit`, {
          inject: Effect.timeoutFail(link!.proxy.loseAnswerTo(commitName), {
            duration: commitWithin,
            onTimeout: () => new Error(`${name} did not commit within ${commitWithin}`)
          }).pipe(Effect.orDie)
        })
      }
    })
}

/** A way to cut a node off from others that still reach PostgreSQL. */
interface Partition {
  readonly what: string
  readonly apply: (scene: Scene, node: string) => Effect.Effect<unknown>
}

const kinds: ReadonlyArray<LinkKind> = ["data", "runner"]
const others = (scene: Scene, node: string) => scene.cluster.nodes.filter(({ name }) => name !== node)

/** Links between a node and other nodes. */
const between = (
  scene: Scene,
  node: string,
  modes: { readonly from: Mode; readonly to: Mode },
  peers = others(scene, node)
) =>
  Effect.forEach(peers, ({ name }) =>
    Effect.forEach(kinds, (kind) =>
      Effect.zipRight(
        set(scene, { from: node, to: name, kind }, modes.from),
        set(scene, { from: name, to: node, kind }, modes.to)
      )))

const flaps = 5
const flapMs = 1_000
const cut = blackhole()

const partitions: ReadonlyArray<Partition> = [
  { what: "from the other nodes", apply: (scene, node) => between(scene, node, { from: cut, to: cut }) },
  {
    what: "from everybody but PostgreSQL",
    apply: (scene, node) => Effect.zipRight(between(scene, node, { from: cut, to: cut }), set(scene, { to: node }, cut))
  },
  { what: "so that others do not reach it", apply: (scene, node) => between(scene, node, { from: pass, to: cut }) },
  { what: "so that it does not reach others", apply: (scene, node) => between(scene, node, { from: cut, to: pass }) },
  {
    what: "from the other nodes, on and off",
    apply: (scene, node) =>
      Effect.gen(function*() {
        for (let n = 0; n < flaps; n++) {
          yield* between(scene, node, { from: cut, to: cut })
          yield* Effect.sleep(flapMs)
          yield* between(scene, node, { from: pass, to: pass })
          yield* Effect.sleep(flapMs)
        }
      })
  },
  {
    what: "by connections that break",
    apply: (scene, node) => between(scene, node, { from: { _tag: "reset" }, to: { _tag: "reset" } })
  },
  {
    what: "from one of the other nodes, which a third one reaches",
    apply: (scene, node) => between(scene, node, { from: cut, to: cut }, others(scene, node).slice(0, 1))
  }
]
const partedMs = 6_000

export const partitionNode: Scenario = {
  name: "partition-node",
  catalogue: "T15",
  what: "a node is cut off from other nodes, both ways, one way, on and off; PostgreSQL stays in reach",
  setting: { links: kinds },
  times: partitions.length,
  quickTimes: 3,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const { apply, what } = inTurn(partitions, n)
        const { name } = inTurn(scene.cluster.nodes, n)
        yield* scene.event(`${name} is cut off ${what}`, { inject: apply(scene, name) })
        yield* Effect.sleep(partedMs)
        yield* scene.links.heal
        yield* scene.healed(`${name} is in reach again`)
      }
    })
}

const corruptions = 3
const corruptPause = "300 millis"

/**
 * Only where nodes ask each other for owners: a flipped bit inside a payload or an id is data like any other to whoever gets
 * it. TCP's checksum, or TLS, is there to see that.
 */
export const corruptByte: Scenario = {
  name: "corrupt-byte",
  catalogue: "T23",
  what: "bits flip in what one node after the other hears from its peers about the owners of queues",
  setting: { links: ["runner"] },
  times: 6,
  quickTimes: 3,
  play: (scene) =>
    allSurvive(
      scene,
      Effect.gen(function*() {
        for (let n = 0; n < scene.times; n++) {
          const { name } = inTurn(scene.cluster.nodes, n)
          const way = inTurn(both, n)
          yield* scene.event(`a bit flips ${corruptions} times in what ${name} says and hears, ${way}`, {
            inject: Effect.forEach(numbers(corruptions), () =>
              Effect.zipRight(
                Effect.sync(() => {
                  for (const { proxy } of scene.links.find({ from: name, kind: "runner" })) proxy.corruptByte(way)
                }),
                Effect.sleep(corruptPause)
              ))
          })
        }
      })
    )
}

const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, at) => at)

const linkKinds: ReadonlyArray<LinkKind> = ["data", "runner", "postgres"]

export const halfClose: Scenario = {
  name: "half-close",
  catalogue: "T15",
  what: "connections are closed in one way only, to and from a node and PostgreSQL",
  setting: { links: linkKinds },
  times: 12,
  quickTimes: 6,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const kind = inTurn(linkKinds, n)
        const way = inTurn(both, Math.floor(n / linkKinds.length))
        const { name } = inTurn(scene.cluster.nodes, n)
        const which = kind === "postgres" ? { from: name, kind } : { to: name, kind }
        yield* scene.event(`nothing more comes ${way} on the ${kind} links of ${name}`, {
          inject: Effect.sync(() => {
            for (const { proxy } of scene.links.find(which)) proxy.halfClose(way)
          })
        })
      }
    })
}
