/**
 * Answers one poll of a watch, on any node: looks at the rows, and again when a hint says so, until there is something new or
 * the time is up. Without hints it looks every 0.8 s.
 */
import type { StoreUnavailable } from "@orrery/core/Errors"
import { ClusterUnavailable, type RunNotFound } from "@orrery/core/Errors"
import { type Ending, endingsMax, type ProgressStore } from "@orrery/core/ProgressStore"
import type { Run } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import { shownNotes } from "@orrery/core/RunNotes"
import { isFinal } from "@orrery/core/RunState"
import { pollMs, type QueueName, type RunEvent, type SignalsService, type Watched } from "@orrery/core/Signals"
import * as Watch from "@orrery/core/Watch"
import { Clock, Effect, Stream } from "effect"

export interface WatchSources {
  readonly find: (id: RunId) => Effect.Effect<Run, RunNotFound | ClusterUnavailable>
  /** Answers when the run is final, or not any more: then nobody waits for it. */
  readonly awaitFinal: (id: RunId, waitMs: number) => Effect.Effect<unknown, unknown>
  readonly progress: ProgressStore["Type"]
  readonly signals: SignalsService
}

/** Pause between two looks at the rows of one watch: a queue may be told of a hundred times a second. */
const lookPause = "50 millis"
/** Hints of one poll wait so long for others. */
const gatherPause = "20 millis"
/** Changes by hints in one answer, about. */
const hintsMax = 1_000
const endsMax = 1_000
const endsMaxMax = 64_000
/** Where ends are told by hints, rows are looked at this often, so that a cursor does not fall far behind. */
const rowsEveryMs = 10_000

const unavailable = (operation: string) => (error: StoreUnavailable) =>
  new ClusterUnavailable({ operation, reason: error.message })

/** What is new of a run, once there is something; nothing new after `waitMs`. */
export const runChanges = (
  { awaitFinal, find, progress, signals }: WatchSources,
  id: RunId,
  cursor: string,
  waitMs: number
): Effect.Effect<Watch.RunChanges, RunNotFound | ClusterUnavailable> =>
  Effect.gen(function*() {
    if (Watch.isEnd(cursor)) return { changes: [], cursor, isOver: true }
    const look = Effect.flatMap(find(id), (run) =>
      Effect.map(
        Effect.mapError(progress.find([id]), unavailable("watch")),
        ([notes]) => ({ run, found: Watch.changesOf(cursor, run, notes === undefined ? null : shownNotes(notes)) })
      ))
    const first = yield* look
    if (first.found.changes.length > 0 || waitMs === 0) return first.found
    const until = (yield* Clock.currentTimeMillis) + waitMs
    const wake = yield* Effect.makeLatch(false)
    const concerns = (item: Watched) => item._tag === "gap" || item.events.some((event) => event.id === id)
    const hints = yield* signals.watch({ namespace: first.run.namespace, queue: first.run.queue })
    // A watch begins with a gap: what changed before it is looked for then.
    yield* Effect.forkScoped(Stream.runForEach(Stream.filter(hints, concerns), () => wake.open))
    yield* Effect.forkScoped(Effect.zipRight(Effect.ignore(awaitFinal(id, waitMs)), wake.open))
    while (true) {
      const left = until - (yield* Clock.currentTimeMillis)
      if (left <= 0) return first.found
      yield* Effect.timeoutOption(wake.await, left)
      yield* wake.close
      const { found } = yield* look
      if (found.changes.length > 0) return found
      yield* Effect.sleep(lookPause)
    }
  }).pipe(Effect.scoped)

/** What is new of the runs of a queue, once there is something; nothing new after `waitMs`. */
export const queueChanges = (
  { progress, signals }: WatchSources,
  name: QueueName,
  cursor: string,
  waitMs: number
): Effect.Effect<Watch.QueueChanges, ClusterUnavailable> =>
  Effect.gen(function*() {
    const position = Watch.queuePositionOf(cursor)
    const { since } = position
    if (position.isBehind && since !== undefined) {
      return answerOf(cursor, yield* readEnds(progress, name, { ...position, since }), [])
    }
    const items = yield* hintsOf(signals, name, position.hints, waitMs, since !== undefined)
    // It begins: with one gap, so that its cursor is the first thing it has.
    if (since === undefined) {
      const hints = items[0]?.cursor ?? ""
      const { horizon } = yield* endsPage(progress, name, Number.MAX_SAFE_INTEGER, 1)
      return answerOf(cursor, { position: { since: horizon, isBehind: false, hints }, ends: [] }, [{ _tag: "gap" }])
    }
    const hints = items.at(-1)?.cursor ?? position.hints
    const hinted = items.flatMap((item) => item._tag === "events" ? item.events : [])
    const endings = yield* endingsOf(progress, name, hinted.filter(isEnd).map(({ id }) => id))
    const told: Array<Watch.QueueChange> = []
    const running = new Set<RunId>()
    let isGap = false
    for (const item of items) {
      if (item._tag === "gap") {
        if (told.at(-1)?._tag !== "gap") told.push({ _tag: "gap" })
        isGap = true
        continue
      }
      for (const event of item.events) {
        const { id, state } = event
        if (event.isProgress === true) running.add(id)
        else if (isEnd(event)) told.push(...endOf(event, endings))
        else told.push(Watch.queueChangeOf(id, state))
      }
    }
    if (running.size > 0) {
      for (const notes of yield* Effect.mapError(progress.find([...running]), unavailable("watch"))) {
        told.push({ _tag: "progress", id: notes.runId, attempt: notes.attempt, progress: notes.progress })
      }
    }
    const isOld = (yield* Clock.currentTimeMillis) - since > rowsEveryMs
    if (!isGap && !isOld) return answerOf(cursor, { position: { ...position, hints }, ends: [] }, told)
    return answerOf(cursor, yield* readEnds(progress, name, { since, hints }), told)
  }).pipe(Effect.scoped)

const isEnd = ({ state }: RunEvent): boolean => isFinal(state)

/** A hint may be forged: an end is told as the rows have it. */
const endingsOf = (progress: ProgressStore["Type"], name: QueueName, ids: ReadonlyArray<RunId>) =>
  Effect.gen(function*() {
    const all = new Map<RunId, Ending>()
    for (let at = 0; at < ids.length; at += endingsMax) {
      const found = yield* Effect.mapError(
        progress.endings(name, ids.slice(at, at + endingsMax)),
        unavailable("watch")
      )
      for (const [id, ending] of found) all.set(id, ending)
    }
    return all
  })

/** Nothing of one that has not ended, and of one that has no row what the hint says. */
const endOf = ({ id, state }: RunEvent, endings: ReadonlyMap<RunId, Ending>): ReadonlyArray<Watch.QueueChange> => {
  const ending = endings.get(id)
  if (ending === "open") return []
  return ending === undefined
    ? [{ _tag: "end", id, state, isUnkept: true }]
    : [{ _tag: "end", id, state: ending }]
}

interface Read {
  readonly position: Watch.QueuePosition
  readonly ends: ReadonlyArray<Watch.QueueChange>
}

const endsPage = (progress: ProgressStore["Type"], { namespace, queue }: QueueName, since: number, limit: number) =>
  Effect.mapError(progress.endsSince({ namespace, queue, since, limit }), unavailable("watch"))

/** Ends since the position, a page of them. */
const readEnds = (
  progress: ProgressStore["Type"],
  name: QueueName,
  { hints, since }: { readonly since: number; readonly hints: string },
  limit = endsMax
): Effect.Effect<Read, ClusterUnavailable> =>
  Effect.gen(function*() {
    const page = yield* endsPage(progress, name, since, limit)
    const last = page.ends.at(-1)
    // More ends in one millisecond than a page holds: a larger page.
    if (page.more && last?.finishedAt === since && limit < endsMaxMax) {
      return yield* readEnds(progress, name, { hints, since }, limit * 2)
    }
    return {
      position: { hints, isBehind: page.more, since: page.more ? last!.finishedAt : page.horizon },
      ends: page.ends.map(({ id, state }) => Watch.queueChangeOf(id, state))
    }
  })

/** All changes of an answer go together: the cursor of each but the last is that from before. */
const answerOf = (
  before: string,
  { ends, position }: Read,
  told: ReadonlyArray<Watch.QueueChange>
): Watch.QueueChanges => {
  const cursor = Watch.queueCursorOf(position)
  const all = [...told, ...ends]
  const changes = all.map((change, at) => ({ change, cursor: at === all.length - 1 ? cursor : before }))
  return { changes, cursor, isOver: false }
}

/** The hints that come within `waitMs`, those together that come together. */
const hintsOf = (
  signals: SignalsService,
  name: QueueName,
  after: string,
  waitMs: number,
  isResumed: boolean
) =>
  Effect.gen(function*() {
    const items: Array<Watched> = []
    let count = 0
    const began = yield* Clock.currentTimeMillis
    const some = yield* Effect.makeLatch(false)
    const told = yield* Effect.makeLatch(false)
    const hints = yield* signals.watch(name, after === "" ? {} : { after })
    yield* Stream.runForEach(hints, (item) =>
      Effect.suspend(() => {
        items.push(item)
        count += item._tag === "gap" ? 1 : item.events.length
        some.unsafeOpen()
        if (item._tag === "events") told.unsafeOpen()
        // What comes after is told by the next poll.
        return count >= hintsMax ? Effect.never : Effect.void
      })).pipe(Effect.forkScoped)
    yield* Effect.timeoutOption(some.await, waitMs)
    if (items.length > 0) yield* Effect.sleep(gatherPause)
    // A poll that begins with a gap: there may be no hints, and then the rows are read every `pollMs`.
    const left = pollMs - ((yield* Clock.currentTimeMillis) - began)
    if (isResumed && items[0]?._tag === "gap" && left > 0) yield* Effect.timeoutOption(told.await, left)
    return items.slice()
  })
