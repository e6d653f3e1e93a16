/**
 * How long the queues of a node are not served after it is killed (SIGKILL), frozen (SIGSTOP) or drained (SIGTERM), and how
 * long the attempts of a killed worker are not running: three nodes under steady load on this machine, each event
 * `--times N` times (default 12), every node in turn. Prints one line per event, and one JSON object at the end. What the
 * processes say is in `.orrery/bench/recovery.log`.
 */
import { Runs } from "@orrery/core/Runs"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import { NodeRuntime } from "@effect/platform-node"
import { nap } from "@orrery/testing/rigTasks"
import { Context, Effect, type Redacted } from "effect"
import { createWriteStream } from "node:fs"

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

const nodeEvents = (
  rig: ClusterRig.Rig,
  load: ClusterRig.Load,
  signal: "SIGKILL" | "SIGSTOP" | "SIGTERM",
  times: number
) =>
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

const napMs = 600_000
const naps = 16

interface Running {
  readonly id: string
  readonly worker: string
  readonly attempt: number
}

/** Two workers share long attempts; one is killed; until all it had run again, on the other. */
const workerKills = (databaseUrl: Redacted.Redacted<string>, times: number) =>
  Effect.gen(function*() {
    const { client, cluster, query } = yield* ClusterRig.start({ databaseUrl, workers: 2, workerSlots: 0 })
    const runs = Context.get(client, Runs)
    const running = query<Running>("select id, worker, attempt from orrery.runs where state = 3")
    const waits: Array<number> = []
    for (let n = 0; n < times; n++) {
      const ids = yield* nap.enqueueMany(Array.from({ length: naps }, () => ({ ms: napMs }))).pipe(
        Effect.provide(client)
      )
      const before = yield* ClusterRig.eventually(running, (rows) => rows.length === naps)
      const names = yield* Effect.forEach(cluster.workers, (each) => Effect.map(each.ready, ({ nodeId }) => nodeId))
      const held = names.map((name) => before.filter((row) => row.worker === name))
      const at = held[0]!.length >= held[1]!.length ? 0 : 1
      const victim = cluster.workers[at]!
      yield* Effect.sleep("1 second")
      const killedAt = performance.now()
      yield* victim.kill("SIGKILL")
      yield* ClusterRig.eventually(
        running,
        (rows) => held[at]!.every(({ attempt, id }) => rows.some((row) => row.id === id && row.attempt > attempt))
      )
      waits.push(performance.now() - killedAt)
      yield* Effect.log(`SIGKILL of ${victim.name}: ${Math.round(waits[n]!)} ms`)
      yield* Effect.forEach(ids, (id) => runs.cancel(id), { concurrency: naps, discard: true })
      yield* Effect.forEach(ids, (id) => runs.awaitFinal(id), { concurrency: naps, discard: true })
      yield* victim.ready
      yield* Effect.sleep("2 seconds")
    }
    return summary(waits)
  })

/** What the processes said, to look up what took long. */
const logFile = ".orrery/bench/recovery.log"

const processLog = Effect.acquireRelease(
  Effect.sync(() => createWriteStream(logFile)),
  (stream) => Effect.sync(() => stream.end())
).pipe(Effect.map((stream) => (name: string, line: string) => void stream.write(`[${name}] ${line}\n`)))

const main = Effect.scoped(
  Effect.gen(function*() {
    const times = argument("--times", timesDefault)
    const server = yield* EmbeddedPostgres.start({ dataDir: ".orrery/bench/recovery" })
    const database = (name: string) => EmbeddedPostgres.createDatabase(server, `recovery_${name}_${process.pid}`)
    const nodes = yield* Effect.scoped(Effect.gen(function*() {
      const onLine = yield* processLog
      const rig = yield* ClusterRig.start({ databaseUrl: yield* database("nodes"), workers: 1, onLine })
      const load = yield* rig.load
      const drain = yield* nodeEvents(rig, load, "SIGTERM", times)
      const { attemptsMax } = (yield* rig.query<{ attemptsMax: number }>(
        `select max(attempt) as "attemptsMax" from orrery.run_history`
      ))[0]!
      const kill = yield* nodeEvents(rig, load, "SIGKILL", times)
      const freeze = yield* nodeEvents(rig, load, "SIGSTOP", times)
      const verdict = yield* load.settle
      return { drain: { ...drain, attemptsMax }, kill, freeze, ...verdict }
    }))
    const workerKill = yield* Effect.scoped(Effect.flatMap(database("workers"), (url) => workerKills(url, times)))
    yield* Effect.sync(() => process.stdout.write(`${JSON.stringify({ ...nodes, workerKill })}\n`))
  })
)

NodeRuntime.runMain(main)
