/**
 * `Runs` for a process that talks to no node: it knows the database, and Redis where there is one. It reads, follows and
 * awaits; the rest (enqueue, cancel, edit, redrive, explain, delete) it refuses. To enqueue it has `enqueueInTransaction`.
 *
 * Who awaits is told by hints of the queue that its run has ended, and by one look a second at all runs that are awaited in
 * the queue where there are no hints; the end is then taken from the cache of ends, or its row.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { EndCache } from "@orrery/core/EndCache"
import { endingsMax, ProgressStore } from "@orrery/core/ProgressStore"
import type { RunId } from "@orrery/core/RunId"
import { RunReader } from "@orrery/core/RunReader"
import { isFinal } from "@orrery/core/RunState"
import { Runs } from "@orrery/core/Runs"
import { queueKey, type QueueName, Signals, type Watched } from "@orrery/core/Signals"
import { Effect, Layer, RcMap, Schedule, type Scope, Stream } from "effect"
import * as OwnedCalls from "./OwnedCalls.js"
import * as Watching from "./Watching.js"

/** A queue nobody awaits anything of is followed this long, for who may come next. */
const followedFor = "5 seconds"
/** Pause between two looks at the rows for one queue, and for one run. */
const lookPause = "50 millis"
/** A look that fails is made good by the next gap. */
const again = Schedule.spaced("250 millis").pipe(Schedule.intersect(Schedule.recurs(3)))
const waitMsMax = 20_000

interface Follower {
  /** Opens `woken` whenever the run may have ended, until the scope closes. */
  readonly add: (id: RunId, woken: Effect.Latch) => Effect.Effect<void, never, Scope.Scope>
}

type Woken = Set<Effect.Latch>

/** Who awaits which runs of one queue. */
const follow = (
  name: QueueName,
  { progress, signals }: Pick<Watching.WatchSources, "progress" | "signals">
): Effect.Effect<Follower, never, Scope.Scope> =>
  Effect.gen(function*() {
    const awaited = new Map<RunId, Woken>()
    /** To be looked at: what happened before they were awaited here no hint tells any more. */
    let added: Array<RunId> = []
    const someAdded = yield* Effect.makeLatch(false)

    const wake = (id: RunId): void => {
      for (const woken of awaited.get(id) ?? []) woken.unsafeOpen()
    }
    const lookAt = (ids: ReadonlyArray<RunId>) =>
      Effect.gen(function*() {
        for (let at = 0; at < ids.length; at += endingsMax) {
          const page = ids.slice(at, at + endingsMax)
          const endings = yield* progress.endings(name, page)
          for (const id of page) if (endings.get(id) !== "open") wake(id)
        }
      }).pipe(
        Effect.retry(again),
        Effect.catchAll((error) => Effect.logWarning(`cannot look for ends: ${error.message}`)),
        Effect.zipRight(Effect.sleep(lookPause))
      )
    const heard = (item: Watched) =>
      item._tag === "gap"
        ? lookAt([...awaited.keys()])
        : Effect.sync(() => {
          for (const { id, state } of item.events) if (isFinal(state)) wake(id)
        })

    yield* Effect.forkScoped(Stream.runForEach(yield* signals.watch(name), heard))
    yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
      yield* someAdded.await
      someAdded.unsafeClose()
      const ids = added
      added = []
      yield* lookAt(ids)
    })))
    return {
      add: (id, woken) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const waiting = awaited.get(id) ?? new Set()
            awaited.set(id, waiting.add(woken))
            added.push(id)
            someAdded.unsafeOpen()
            return waiting
          }),
          (waiting) =>
            Effect.sync(() => {
              waiting.delete(woken)
              if (waiting.size === 0 && awaited.get(id) === waiting) awaited.delete(id)
            })
        ).pipe(Effect.asVoid)
    }
  })

const make = Effect.gen(function*() {
  const reader = yield* RunReader
  const progress = yield* ProgressStore
  const signals = yield* Signals
  const ends = yield* EndCache
  const followers = yield* RcMap.make({
    lookup: (key: string) => {
      const at = key.indexOf("|")
      return follow({ namespace: key.slice(0, at), queue: key.slice(at + 1) }, { progress, signals })
    },
    idleTimeToLive: followedFor
  })

  const find = (id: RunId) => OwnedCalls.find(reader, id)
  const look = (id: RunId) =>
    Effect.gen(function*() {
      const kept = yield* ends.find(id)
      if (kept !== undefined) return kept
      const run = yield* find(id)
      if (isFinal(run.state)) ends.keep(run)
      return run
    })
  const awaitFinal: Runs["Type"]["awaitFinal"] = (id) =>
    Effect.gen(function*() {
      let run = yield* look(id)
      if (isFinal(run.state)) return run
      const woken = yield* Effect.makeLatch(false)
      const follower = yield* RcMap.get(followers, queueKey(run))
      yield* follower.add(id, woken)
      while (true) {
        yield* woken.await
        woken.unsafeClose()
        run = yield* look(id)
        if (isFinal(run.state)) return run
        yield* Effect.sleep(lookPause)
      }
    }).pipe(Effect.scoped)

  const sources: Watching.WatchSources = {
    find,
    awaitFinal: (id, waitMs) => Effect.timeoutOption(awaitFinal(id), waitMs),
    progress,
    signals
  }
  const refused = (operation: string) => () =>
    new ClusterUnavailable({ operation, reason: "this process reads the database and calls no node" })

  return Runs.of({
    get: find,
    list: (filter) => OwnedCalls.list(reader, filter),
    awaitFinal,
    progress: (id) => OwnedCalls.progress(progress, id),
    changes: (id, after, waitMs) => Watching.runChanges(sources, id, after, Math.min(waitMs, waitMsMax)),
    queueChanges: (name, after, waitMs) => Watching.queueChanges(sources, name, after, Math.min(waitMs, waitMsMax)),
    enqueueMany: refused("enqueue"),
    cancel: refused("cancel"),
    edit: refused("edit"),
    deleteFinal: refused("delete"),
    redrive: refused("redrive"),
    explain: refused("explain")
  })
})

export const layer: Layer.Layer<Runs, never, RunReader | ProgressStore> = Layer.scoped(Runs, make)
