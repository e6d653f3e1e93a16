/** A run is followed from outside while its workers and the owner of its queue are killed. */
import * as RunsClient from "@orrery/api/RunsClient"
import * as LocalCluster from "@orrery/cli/LocalCluster"
import * as Watch from "@orrery/core/Watch"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber, Layer, Stream } from "effect"
import * as ClusterRig from "../../testing/src/ClusterRig.js"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import { pages } from "./fixtures/pagesTask.js"
import { handlersOf } from "./handlersOf.js"
import { orrery, orreryHere } from "./orrery.js"

const count = 60

describe("a run that tells", () => {
  it.scopedLive(
    "goes on from its checkpoint when workers and owners are killed, and whoever watches misses nothing",
    () =>
      Effect.gen(function*() {
        const databaseUrl = yield* TestPostgres.freshDatabase
        const cluster = yield* LocalCluster.start({
          databaseUrl,
          nodes: 3,
          workers: 2,
          workerSlots: 0,
          ...handlersOf("pages")
        })
        yield* ClusterRig.endAtOnce(cluster)
        const client = yield* Layer.build(RunsClient.layer({ nodes: cluster.addresses }))
        const id = yield* Effect.provide(pages.enqueue({ count }), client)
        let page = 0
        const lines: Array<string> = []
        const watch = yield* Watch.task(pages, id).pipe(
          Stream.tap(({ change }) =>
            Effect.sync(() => {
              if (change._tag === "progress") page = change.progress.page
              if (change._tag === "log") lines.push(...change.lines.map(({ attempt, text }) => `${attempt} ${text}`))
            })
          ),
          Stream.runLast,
          Effect.provide(client),
          Effect.fork
        )
        const pageIs = (least: number) => ClusterRig.eventually(Effect.sync(() => page), (at) => at >= least)

        yield* pageIs(10)
        yield* Effect.forEach(cluster.workers, (worker) => worker.kill("SIGKILL"), { discard: true })
        yield* pageIs(25)
        // One of them owns the queue, or the third does: then it was the watch that moved.
        yield* Effect.forEach(cluster.nodes.slice(0, 2), (node) => node.kill("SIGKILL"), { discard: true })
        const last = yield* Effect.timeout(Fiber.join(watch), "60 seconds")
        const nodes = { ORRERY_NODES: cluster.addresses[2]! }
        const shown = yield* orreryHere(nodes, "runs", "get", id)
        const again = yield* orrery(nodes, "runs", "watch", id)

        const end = last._tag === "Some" ? last.value.change : undefined
        assert(end?._tag === "end" && Either.isRight(end.result))
        assert.strictEqual(end.state, "succeeded")
        assert.deepStrictEqual(end.result.right.at, new Date(0))
        assert.isAtLeast(end.result.right.from, 10)
        // Each page was begun, in order, and told once per attempt that began it.
        const begun = lines.filter((line) => line.includes("page")).map((line) => line.split(" page ").map(Number))
        assert.strictEqual(new Set(lines).size, lines.length)
        assert.deepStrictEqual(
          [...new Set(begun.map(([, each]) => each))],
          Array.from({ length: count }, (_, each) => each)
        )
        assert.isAbove(begun.at(-1)![0]!, 1)
        assert.isAtMost(begun.length, count + 6)
        assert.match(shown.out, /progress +\{"page":59\}/)
        assert.match(shown.out, /log +\S+ #\d+ page 59/)
        assert.strictEqual(again.code, 0)
        assert.match(again.out, /page 59\nsucceeded /)
      }),
    180_000
  )
})
