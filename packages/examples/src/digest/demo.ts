/**
 * Digests a directory tree on a cluster of three nodes and two workers, kills a node midway, and checks afterwards that
 * nothing was lost, doubled or wrong.
 *
 * The last quarter of the runs is enqueued after the kill: so the kill comes midway however fast the machine is, and
 * enqueuing goes on while the killed node's queues have no owner.
 */
import * as RunsClient from "@orrery/api/RunsClient"
import * as LocalCluster from "@orrery/cli/LocalCluster"
import type { Supervised } from "@orrery/cli/Supervisor"
import type { Run } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import { listLimitMax, Runs } from "@orrery/core/Runs"
import { Clock, Data, Duration, Effect, type Redacted, Schedule, Schema } from "effect"
import { fileURLToPath } from "node:url"
import * as Evidence from "./Evidence.js"
import { digestOf, type Found, isUnchanged, listFiles } from "./files.js"
import * as Progress from "./Progress.js"
import { digestFile } from "./task.js"

export interface DemoOptions {
  readonly databaseUrl: Redacted.Redacted<string>
  readonly directory: string
  readonly limit: number
  /** What the processes of the cluster say. */
  readonly onLine: (name: string, line: string) => void
}

export interface Verdict {
  readonly verified: boolean
  readonly files: number
  readonly bytes: number
  readonly runs: number
  readonly succeeded: number
  readonly lost: number
  readonly duplicated: number
  readonly mismatched: number
  /** Files that somebody changed meanwhile: they cannot be compared. */
  readonly changed: number
  readonly killedNodes: number
  readonly restartedNodes: number
  /** From the kill until every queue of the killed node had another owner. */
  readonly takeoverMs: number
  /** After the kill: the longest time between two committed ends. */
  readonly longestGapMs: number
  readonly runsPerSecond: number
}

export class DemoFailed extends Data.TaggedError("DemoFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const nodes = 3
const workers = 2
/** Slots of each node and of each worker: a file is read in less than the time of a switch between more. */
const slots = 4
/** Spread over the nodes, so that each owns some. */
const queues = 12
const chunk = 500
const shareBeforeKill = 0.75
const killAtShare = 0.5
const watchEvery = Duration.millis(100)
/** No run ended for this long: something is wrong. */
const stallMs = 60_000
const comesBackWithin = Duration.seconds(60)

const handlers = fileURLToPath(new URL("./handlers.ts", import.meta.url))

export const run = (options: DemoOptions, progress: Progress.Progress) =>
  Effect.gen(function*() {
    const files = yield* Effect.promise(() => listFiles(options.directory, options.limit))
    if (files.length === 0) return yield* new DemoFailed({ reason: `no readable files in ${options.directory}` })
    yield* progress.say(`${files.length} files in ${options.directory}`)
    yield* progress.say(`starting ${nodes} nodes and ${workers} workers`)
    const cluster = yield* LocalCluster.start({
      databaseUrl: options.databaseUrl,
      nodes,
      workers,
      handlers,
      onLine: options.onLine,
      workerSlots: slots,
      slots
    })
    yield* progress.say(`nodes listen on ${cluster.addresses.join(" ")}`)
    const namespace = `demo-${(yield* Clock.currentTimeMillis).toString(36)}`
    const evidence = yield* Evidence.make(options.databaseUrl, namespace)
    const state: State = {
      files,
      namespace,
      evidence,
      cluster,
      progress,
      enqueued: [],
      killedAt: 0,
      takeoverMs: 0,
      killedNodes: 0,
      restartedNodes: 0
    }
    const verdict = yield* Effect.provide(drive(state), RunsClient.layer({ nodes: cluster.addresses }))
    return { verdict, cluster }
  })

interface State {
  readonly files: ReadonlyArray<Found>
  readonly namespace: string
  readonly evidence: Evidence.Evidence
  readonly cluster: LocalCluster.LocalCluster
  readonly progress: Progress.Progress
  readonly enqueued: Array<RunId>
  killedAt: number
  takeoverMs: number
  killedNodes: number
  restartedNodes: number
}

const drive = (state: State) =>
  Effect.gen(function*() {
    const { evidence, files, progress } = state
    const first = Math.ceil(files.length * shareBeforeKill)
    const isHalfDone = Effect.map(evidence.finished, (done) => done >= Math.floor(files.length * killAtShare))
    const script = Effect.gen(function*() {
      yield* together(enqueue(state, files.slice(0, first)), until(isHalfDone))
      const killed = yield* killOne(state)
      const aftermath = together(comesBack(state, killed.node), takenOver(state, killed.nodeId))
      yield* together(aftermath, enqueue(state, files.slice(first)))
    })
    yield* together(script, watch(state))
    yield* progress.say("every run has ended; comparing with a sequential computation")
    return yield* verify(state)
  })

/** Both, side by side; the failure of one ends the other. */
const together = <E1, R1, E2, R2>(one: Effect.Effect<void, E1, R1>, other: Effect.Effect<void, E2, R2>) =>
  Effect.all([one, other], { concurrency: 2, discard: true })

/** One run per file; answers when all are durable. */
const enqueue = (state: State, files: ReadonlyArray<Found>) =>
  Effect.gen(function*() {
    const runs = yield* Runs
    for (let at = 0; at < files.length; at += chunk) {
      const requests = yield* Effect.forEach(files.slice(at, at + chunk), ({ path }, index) =>
        Effect.map(digestFile.request({ path }), (request) => ({
          ...request,
          namespace: state.namespace,
          queue: `digest-${(at + index) % queues}`
        })))
      yield* runs.enqueueMany(requests)
      for (const { id } of requests) {
        state.enqueued.push(id)
      }
    }
  })

/** SIGKILL to the node that owns most of our queues. */
const killOne = (state: State) =>
  Effect.gen(function*() {
    const { cluster, evidence, progress } = state
    const [owner] = yield* evidence.owners
    const ready = yield* Effect.forEach(cluster.nodes, (node) => Effect.map(node.ready, (is) => ({ node, is })))
    const { is, node } = ready.find((each) => each.is.nodeId === owner) ?? ready[0]!
    state.killedAt = yield* evidence.now
    yield* node.kill("SIGKILL")
    state.killedNodes += 1
    yield* progress.say(`killed ${node.name} (pid ${is.pid}, SIGKILL), which owned most queues`)
    return { node, nodeId: is.nodeId }
  })

const takenOver = (state: State, nodeId: string) =>
  Effect.gen(function*() {
    const { evidence, progress } = state
    yield* until(Effect.map(evidence.ownedBy(nodeId), (count) => count === 0))
    state.takeoverMs = (yield* evidence.now) - state.killedAt
    yield* progress.say(`its queues have other owners, ${state.takeoverMs} ms after the kill`)
  })

/** Ends when the supervisor has started the node again. */
const comesBack = (state: State, node: Supervised) =>
  Effect.gen(function*() {
    const ready = yield* Effect.timeoutFail(node.ready, {
      duration: comesBackWithin,
      onTimeout: () => new DemoFailed({ reason: `${node.name} did not come back` })
    })
    state.restartedNodes += 1
    yield* state.progress.say(`${node.name} is back (pid ${ready.pid})`)
  })

/** Shows how far it is; ends when every file has an ended run. */
const watch = (state: State) =>
  Effect.gen(function*() {
    const { evidence, files, progress } = state
    let last = { done: 0, at: performance.now() }
    const startedAt = last.at
    yield* Effect.gen(function*() {
      const done = yield* evidence.finished
      const now = performance.now()
      if (done > last.done) last = { done, at: now }
      if (now - last.at > stallMs) {
        return yield* new DemoFailed({ reason: `no run has ended for ${stallMs} ms (${done} of ${files.length} have)` })
      }
      const rate = Math.round((done / Math.max(1, now - startedAt)) * 1_000)
      yield* progress.status(`${Progress.bar(done, files.length)} ${done}/${files.length} runs, ${rate}/s`)
      return done >= files.length
    }).pipe(Effect.repeat({ until: (isDone) => isDone, schedule: Schedule.spaced(watchEvery) }))
  })

const until = <E>(holds: Effect.Effect<boolean, E>): Effect.Effect<void, E> =>
  Effect.asVoid(Effect.repeat(holds, { until: (is) => is, schedule: Schedule.spaced("20 millis") }))

const decodeResult = Schema.decode(Schema.parseJson(digestFile.success))
const decodePayload = Schema.decode(Schema.parseJson(digestFile.payload))

const verify = (state: State) =>
  Effect.gen(function*() {
    const { evidence, files } = state
    const final = yield* listAll(state.namespace)
    const digests = new Map<string, string>()
    const known = new Set<RunId>()
    for (const each of final) {
      if (each.finishedAt === null) continue
      known.add(each.id)
      if (each.state !== "succeeded") continue
      const { path } = yield* decodePayload(each.payload)
      digests.set(path, (yield* decodeResult(each.result ?? "null")).sha256)
    }
    const compared = yield* Effect.promise(() => compare(files, digests))
    const duplicated = yield* evidence.duplicated
    const durationMs = yield* evidence.durationMs
    const lost = state.enqueued.filter((id) => !known.has(id)).length
    const verdict = {
      files: files.length,
      bytes: files.reduce((sum, file) => sum + file.size, 0),
      runs: state.enqueued.length,
      succeeded: digests.size,
      lost,
      duplicated,
      ...compared,
      killedNodes: state.killedNodes,
      restartedNodes: state.restartedNodes,
      takeoverMs: state.takeoverMs,
      longestGapMs: yield* evidence.longestGapMs(state.killedAt),
      runsPerSecond: Math.round((final.length / Math.max(1, durationMs)) * 1_000)
    }
    const verified = verdict.lost === 0 && verdict.duplicated === 0 && verdict.mismatched === 0
      && verdict.runs === verdict.files && verdict.succeeded === verdict.files
      && verdict.killedNodes === 1 && verdict.restartedNodes === 1
    return { verified, ...verdict } satisfies Verdict
  })

/** Every run of the demo, page by page, as any client would. */
const listAll = (namespace: string) =>
  Effect.gen(function*() {
    const runs = yield* Runs
    const all: Array<Run> = []
    for (;;) {
      const before = all.at(-1)?.id
      const page = yield* runs.list({ namespace, limit: listLimitMax, ...(before === undefined ? {} : { before }) })
      all.push(...page)
      if (page.length < listLimitMax) return all
    }
  })

/** One file after the other, in this process. */
const compare = async (files: ReadonlyArray<Found>, digests: ReadonlyMap<string, string>) => {
  let mismatched = 0
  let changed = 0
  for (const file of files) {
    const digest = await digestOf(file.path).catch(() => undefined)
    if (digest !== undefined && digest.sha256 === digests.get(file.path)) continue
    if (await isUnchanged(file)) mismatched += 1
    else changed += 1
  }
  return { mismatched, changed }
}
