import * as LocalCluster from "@orrery/cli/LocalCluster"
import { assert, describe, it } from "@effect/vitest"
import type { Schedule, Tick } from "@orrery/core/schedule/ScheduleDefinition"
import { endAtOnce, eventually } from "@orrery/testing/ClusterRig"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import { Effect, Redacted } from "effect"
import { fileURLToPath } from "node:url"
import { orrery, orreryHere } from "./orrery.js"

const handlers = fileURLToPath(new URL("../../examples/src/hello.ts", import.meta.url))

type Shown = Schedule & { readonly ticks: ReadonlyArray<Tick> }

describe("orrery schedules", () => {
  it.scopedLive("makes each second's run once while the node that owns the schedule is killed", () =>
    Effect.gen(function*() {
      const url = yield* TestPostgres.freshDatabase
      const env = { ORRERY_DATABASE_URL: Redacted.value(url) }
      const cluster = yield* LocalCluster.start({ databaseUrl: url, nodes: 2, handlers })
      yield* endAtOnce(cluster)
      const schedules = (...args: ReadonlyArray<string>) => orreryHere(env, "schedules", ...args)
      // The node that is asked may be the one that dies.
      const get = eventually(schedules("get", "beat", "--json", "--limit", "500"), ({ code }) => code === 0).pipe(
        Effect.map(({ out }) => JSON.parse(out) as Shown)
      )

      const made = yield* orrery(
        env,
        ...["schedules", "create", "beat", "--task", "hello", "--queue", "hello", "--payload", "{\"name\":\"you\"}"],
        ...["--cron", "* * * * * *", "--misfire", "fireAll", "--overlap-policy", "allowAll"]
      )
      assert.strictEqual(made.code, 0, made.err)
      yield* eventually(get, ({ state }) => state.fires >= 3)
      for (const node of cluster.nodes) {
        const before = (yield* get).state.fires
        yield* node.kill("SIGKILL")
        yield* eventually(get, ({ state }) => state.fires >= before + 3)
      }
      const paused = yield* schedules("pause", "beat", "--by", "test", "--why", "enough")
      const { ticks } = yield* get
      const stale = yield* schedules("resume", "beat", "--revision", "1")
      const last = ticks.find(({ runId }) => runId !== null)!
      const run = yield* orreryHere(env, "runs", "await", last.runId!, "--json")
      const listed = yield* schedules("list")
      const deleted = yield* schedules("delete", "beat")
      const gone = yield* schedules("get", "beat")

      assert.strictEqual(paused.code, 0, paused.err)
      // Each second from the first to the last, each with a run, and no other.
      const seconds = ticks.map(({ first }) => first / 1_000)
      assert.deepStrictEqual(seconds, seconds.map((_, index) => seconds[0]! - index))
      assert.isTrue(ticks.every(({ outcome }) => outcome === "enqueued"))
      assert.strictEqual(new Set(ticks.map(({ runId }) => runId)).size, ticks.length)
      assert.strictEqual((JSON.parse(run.out) as { result: unknown }).result, "hello you")
      assert.match(listed.out, /default\|beat {2}paused/)
      assert.deepStrictEqual([stale.code, deleted.code, gone.code], [1, 0, 1])
      assert.match(stale.err, /is at revision/)
    }))
})
