/**
 * How long the queues of a node are not served after it is killed (SIGKILL), frozen (SIGSTOP) or drained (SIGTERM), and how
 * long the attempts of a killed worker are not running: three nodes under steady load on this machine, each event
 * `--times N` times (default 12), every node in turn. Prints one line per event, and one JSON object at the end.
 */
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"

const timesDefault = 12
/** Between events: shards settle, the killed node is back. */
const settleFor = "6 seconds"

const argument = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(name)
  return at < 0 ? fallback : Number(process.argv[at + 1])
}

const summary = (values: ReadonlyArray<number>) => {
  const sorted = [...values].sort((a, b) => a - b)
  return {
    times: sorted.length,
    medianMs: Math.round(sorted[Math.floor(sorted.length / 2)] ?? 0),
    worstMs: Math.round(sorted[sorted.length - 1] ?? 0)
  }
}

const nodeEvents = (rig: ClusterRig.Rig, load: ClusterRig.Load, signal: "SIGKILL" | "SIGSTOP" | "SIGTERM", times: number) =>
  Effect.gen(function*() {
    const gaps: Array<number> = []
    for (let n = 0; n < times; n++) {
      yield* load.allServed
      yield* Effect.sleep(settleFor)
      const victim = rig.cluster.nodes[n % rig.cluster.nodes.length]!
      const before = yield* victim.ready
      load.longestGap()
      yield* victim.kill(signal)
      yield* load.allServed
      // Hand-overs that come after the first answers count too.
      yield* Effect.sleep("1 second")
      const gap = load.longestGap()
      gaps.push(gap)
      yield* Effect.log(`${signal} of ${victim.name}: ${Math.round(gap)} ms`)
      if (signal === "SIGSTOP") yield* victim.kill("SIGCONT")
      yield* ClusterRig.eventually(victim.lastReady, (ready) => ready !== undefined && ready.nodeId !== before.nodeId)
    }
    return summary(gaps)
  })

const main = Effect.scoped(
  Effect.gen(function*() {
    const times = argument("--times", timesDefault)
    const server = yield* EmbeddedPostgres.start({ dataDir: ".orrery/bench/recovery" })
    const databaseUrl = yield* EmbeddedPostgres.createDatabase(server, `recovery_${process.pid}`)
    const rig = yield* ClusterRig.start({ databaseUrl, workers: 1 })
    const load = yield* rig.load
    const kill = yield* nodeEvents(rig, load, "SIGKILL", times)
    const freeze = yield* nodeEvents(rig, load, "SIGSTOP", times)
    const verdict = yield* load.settle
    yield* Effect.sync(() => process.stdout.write(`${JSON.stringify({ kill, freeze, ...verdict })}\n`))
  })
)

NodeRuntime.runMain(main)
