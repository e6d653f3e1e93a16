/**
 * The gauge `orrery_runs_unaccounted`: runs that are not final and that nothing brings on. It must be 0; more is a bug, and
 * is logged as an error with the first few.
 *
 * Workers are asked once a minute whether they still hold what has been running there for longer: an attempt that its worker has
 * let go of is given out again, is counted by `orrery_attempts_forgotten_total`, and is a bug too.
 *
 * Twice each partition is looked at, and never while nothing happens: after it has committed something, its memory is
 * checked against itself (`Reconciliation`), and when it has come to rest, against the store, one partition per round.
 * A store that cannot be asked, or a partition that moved meanwhile, is looked at again in a later round. The store is given
 * a rest of a hundred times what its last answer took: while a transaction anywhere holds dead rows back, counting reads
 * through all that the partition has left.
 */
import { expected, type Findings, missing, reconcile } from "@orrery/core/Reconciliation"
import { RunTally } from "@orrery/core/RunTally"
import { partitionKey } from "@orrery/core/PartitionStore"
import { Clock, Context, Duration, Effect, Layer, Metric, Option } from "effect"
import { isDeepStrictEqual } from "node:util"
import type { QueueActor } from "./QueueActor.js"
import { Residents } from "./Residents.js"

export const gauge = Metric.gauge("orrery_runs_unaccounted", {
  description: "runs that are not final and that nothing brings on; must be 0"
})

export const forgotten = Metric.counter("orrery_attempts_forgotten_total", {
  description: "attempts that were counted as running at a worker that had let go of them; must be 0",
  incremental: true
})

export class Reconciler extends Context.Tag("@orrery/cluster/Reconciler")<Reconciler, {
  /** As of the last round. */
  readonly unaccounted: () => number
  /** One round, now. Answers the same. */
  readonly round: Effect.Effect<number>
}>() {}

const pause = "5 seconds"
const restFactor = 100
/** Workers are asked in each so-manieth round, about the attempts that ran in the one before already. */
const roundsPerAsk = 12
const askAfterMs = 60_000

interface Looked {
  /** `QueueActor.commits` when its memory, and when the store was last compared. */
  memoryAt: number
  storeAt: number
  memory: number
  store: number
}

const make = Effect.gen(function*() {
  const residents = yield* Residents
  const tally = Option.getOrUndefined(yield* Effect.serviceOption(RunTally))
  const known = new WeakMap<QueueActor, Looked>()
  let unaccounted = 0
  let turn = 0
  /** The store is not asked unbidden before this, ms. */
  let restsUntil = 0

  const lookedAt = (actor: QueueActor): Looked => {
    let looked = known.get(actor)
    if (looked === undefined) {
      looked = { memoryAt: 0, storeAt: 0, memory: 0, store: 0 }
      known.set(actor, looked)
    }
    return looked
  }

  const told = (actor: QueueActor, { examples, unaccounted: found }: Findings, before: number) =>
    found === 0 || found === before
      ? Effect.void
      : Effect.logError(`${found} runs of ${partitionKey(actor.name)} are not accounted for: ${examples.join("; ")}`)

  const lookAtMemory = (actor: QueueActor) =>
    Effect.suspend(() => {
      const looked = lookedAt(actor)
      if (!actor.isOpen || looked.memoryAt === actor.commits) return Effect.void
      looked.memoryAt = actor.commits
      const findings = reconcile(actor.machine, actor.writing)
      const before = looked.memory
      looked.memory = findings.unaccounted
      return told(actor, findings, before)
    })

  const mayAskStore = (actor: QueueActor): boolean =>
    actor.isOpen && !actor.isRetiring && actor.isWritten && lookedAt(actor).storeAt !== actor.commits

  const lookAtStore = (actor: QueueActor) =>
    Effect.gen(function*() {
      const { commits } = actor
      const wanted = expected(actor.machine)
      if (tally === undefined || wanted === undefined) return
      const [took, found] = yield* Effect.timed(tally.count(actor.partitionId, wanted))
      restsUntil = (yield* Clock.currentTimeMillis) + restFactor * Duration.toMillis(took)
      const isSame = mayAskStore(actor) && actor.commits === commits
      if (!isSame || !isDeepStrictEqual(expected(actor.machine), wanted)) return
      const looked = lookedAt(actor)
      const findings = missing(wanted, found)
      const before = looked.store
      looked.storeAt = commits
      looked.store = findings.unaccounted
      yield* told(actor, findings, before)
    }).pipe(Effect.catchTag("StoreUnavailable", () => Effect.void))

  const look = Effect.fnUntraced(function*(asksStore: boolean) {
    const actors = residents.list()
    // One at a time: between two of them other work has its turn.
    yield* Effect.forEach(actors, (actor) => Effect.zipRight(Effect.yieldNow(), lookAtMemory(actor)), { discard: true })
    const resting = asksStore ? actors.filter(mayAskStore) : []
    const next = resting[turn++ % Math.max(1, resting.length)]
    if (next !== undefined) yield* lookAtStore(next)
    unaccounted = 0
    for (const actor of actors) unaccounted += lookedAt(actor).memory + lookedAt(actor).store
    yield* Metric.set(gauge, unaccounted)
    return unaccounted
  })

  let rounds = 0
  let forgottenBefore = 0
  const askWorkers = Effect.suspend(() => {
    const { hub } = residents
    const found = hub.forgotten - forgottenBefore
    forgottenBefore = hub.forgotten
    if (rounds++ % roundsPerAsk === 0) {
      for (const actor of residents.list()) {
        if (!actor.isOpen) continue
        const before = actor.host.clock.now() - askAfterMs
        for (const worker of actor.machine.leases.holdersSince(before)) hub.ask(actor, worker)
      }
    }
    if (found === 0) return Effect.void
    return Effect.zipRight(
      Metric.incrementBy(forgotten, found),
      Effect.logError(`${found} attempts were counted as running at workers that had let go of them: they start again`)
    )
  })

  const paced = Effect.flatMap(Clock.currentTimeMillis, (now) => look(now >= restsUntil))
  yield* Effect.zipRight(askWorkers, paced).pipe(
    Effect.catchAllCause((cause) => Effect.logError("could not reconcile", cause)),
    Effect.delay(pause),
    Effect.forever,
    Effect.annotateLogs({ module: "Reconciler" }),
    Effect.forkScoped
  )
  return Reconciler.of({ unaccounted: () => unaccounted, round: Effect.zipRight(askWorkers, look(true)) })
})

/** Compares with the store where there is a `RunTally`. */
export const layer: Layer.Layer<Reconciler, never, Residents> = Layer.scoped(Reconciler, make)
