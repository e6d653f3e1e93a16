/** Who is left out: a real TCP peer that answers, an address where nobody listens, and the word of the others, as scripted. */
import { assert, describe, it } from "@effect/vitest"
import { type Runner, RunnerAddress } from "@effect/cluster"
import * as NodeConfig from "@orrery/core/NodeConfig"
import { Effect, Layer, Redacted } from "effect"
import { eventually, make as makeTestNode } from "../../api/test/TestNode.js"
import { type KnownRunner, LockStorage } from "../src/LockStorage.js"
import { type DirectoryEntry, NodeDirectory } from "../src/NodeDirectory.js"
import * as PeerWatch from "../src/PeerWatch.js"
import { Reach, type Word } from "../src/Reach.js"

const entry = (nodeId: string, port: number, dataAddress: string): DirectoryEntry => ({
  nodeId,
  dataAddress,
  runnerAddress: `127.0.0.1:${port}`
})
const runnerOf = ({ runnerAddress }: DirectoryEntry): KnownRunner => {
  const [host = "", port = ""] = runnerAddress.split(":")
  return {
    address: runnerAddress,
    runner: { address: RunnerAddress.make(host, Number(port)) } as Runner.Runner,
    healthy: true
  }
}

/** A watch over two peers. Answers who was left out, how often the others were asked, and what was done, in order. */
const watch = (witness: string, suspect: string, word: () => Word, eventLoopLagMaxMs = 800) =>
  Effect.gen(function*() {
    const others = [entry("witness", 1, witness), entry("suspect", 2, suspect)]
    const leftOut: Array<string> = []
    const asked: Array<string> = []
    const steps: Array<string> = []
    const services = Layer.mergeAll(
      Layer.succeed(
        LockStorage,
        {
          runners: () => others.map(runnerOf),
          endSessions: (nodeId: string) => Effect.sync(() => void leftOut.push(nodeId)),
          setHealth: () => Effect.sync(() => void steps.push("recorded"))
        } as unknown as LockStorage["Type"]
      ),
      Layer.succeed(
        NodeDirectory,
        {
          onChange: () => () => undefined,
          replaced: () => undefined
        } as unknown as NodeDirectory["Type"]
      ),
      Layer.succeed(
        Reach,
        {
          others: () => others,
          membersChanged: Effect.sync(() => void steps.push("told")),
          ask: (nodes: ReadonlyArray<DirectoryEntry>, nodeId: string) =>
            Effect.sync(() => {
              asked.push(...nodes.map((node) => `${node.nodeId} about ${nodeId}`))
              return nodes.map(word)
            })
        } as unknown as Reach["Type"]
      ),
      NodeConfig.layer({
        databaseUrl: Redacted.make("postgres://nobody@localhost/none"),
        peerPingIntervalMs: 50,
        peerPingTimeoutMs: 300,
        eventLoopLagMaxMs
      })
    )
    yield* Layer.build(PeerWatch.layer.pipe(Layer.provide(services)))
    return { leftOut, asked, steps }
  })

/** A peer, and once it has been heard twice: until then it may still be starting, and is given time. */
const answering = (nodeId: string, late: () => number = () => 0) =>
  Effect.gen(function*() {
    let pings = 0
    const node = yield* makeTestNode({
      Ping: () => Effect.delay(Effect.sync(() => (pings += 1, nodeId)), late())
    })
    return { ...node, pings: () => pings, heard: eventually(`${nodeId} is heard`, () => pings >= 2) }
  })

describe.concurrent("PeerWatch", { timeout: 30_000 }, () => {
  it.scopedLive("leaves out a peer that has died, unless another node reaches it", () =>
    Effect.gen(function*() {
      const witness = yield* answering("witness")
      const suspect = yield* answering("suspect")
      let word: Word = "reaches"
      const { asked, leftOut, steps } = yield* watch(witness.address, suspect.address, () => word)
      yield* Effect.zipRight(witness.heard, suspect.heard)

      suspect.kill()
      yield* eventually("the witness is asked", () => asked.includes("witness about suspect"))
      yield* Effect.sleep("200 millis")
      const whileReached = [...leftOut]
      word = "does not reach"
      yield* eventually("the others are told", () => steps.includes("told"))

      assert.deepStrictEqual(whileReached, [])
      assert.deepStrictEqual([...new Set(leftOut)], ["suspect"])
      assert.deepStrictEqual(steps.slice(0, 2), ["recorded", "told"])
    }))

  it.scopedLive("leaves out a silent peer, unless another node reaches it", () =>
    Effect.gen(function*() {
      const witness = yield* answering("witness")
      const suspect = yield* answering("suspect")
      let word: Word = "reaches"
      const { asked, leftOut } = yield* watch(witness.address, suspect.address, () => word)
      yield* Effect.zipRight(witness.heard, suspect.heard)

      suspect.freeze()
      yield* eventually("the witness is asked twice", () => asked.length >= 2)
      const whileReached = [...leftOut]
      word = "silent"
      yield* eventually("it is left out", () => leftOut.length > 0)

      assert.deepStrictEqual(whileReached, [])
      assert.deepStrictEqual([...new Set(leftOut)], ["suspect"])
    }))

  it.scopedLive("does not leave out a peer that answers late, each time later than it is waited for", () =>
    Effect.gen(function*() {
      let lateMs = 0
      const witness = yield* answering("witness")
      const suspect = yield* answering("suspect", () => lateMs)
      const { leftOut } = yield* watch(witness.address, suspect.address, () => "does not reach", 2_000)
      yield* Effect.zipRight(witness.heard, suspect.heard)

      lateMs = 400
      const before = suspect.pings()
      // One every 350 ms.
      yield* eventually("more time than silence may last", () => suspect.pings() >= before + 9)

      assert.deepStrictEqual(leftOut, [])
    }))

  it.scopedLive("accuses nobody of silence when it hears nobody", () =>
    Effect.gen(function*() {
      const witness = yield* answering("witness")
      const suspect = yield* answering("suspect")
      const { asked, leftOut } = yield* watch(witness.address, suspect.address, () => "reaches")
      yield* Effect.zipRight(witness.heard, suspect.heard)

      witness.freeze()
      suspect.freeze()
      yield* Effect.sleep("1800 millis")

      assert.deepStrictEqual(leftOut, [])
      assert.notInclude(asked, "suspect about witness")
    }))
})
