/**
 * Following a run, or a queue, from anywhere: a row of long polls, each of which answers with what is new since a cursor and
 * the cursor to go on from, on this node or another. Hints say when to look; what is told of a run, and every end of a run of
 * a queue, is read from the rows, so losing hints loses time and never an end. A watcher that is slow polls less often.
 */
import { Effect, type Either, Option, Schema, Stream } from "effect"
import type { ClusterUnavailable, RunNotFound } from "./Errors.js"
import { Name } from "./Name.js"
import { Run } from "./Run.js"
import { RunId } from "./RunId.js"
import { LogLine, type RunProgress } from "./RunNotes.js"
import { canMove, type FinalState, isFinal, RunState } from "./RunState.js"
import { Runs } from "./Runs.js"
import type { QueueName } from "./Signals.js"

/** Longest cursor, in characters. */
export const cursorLengthMax = 160
/** Longest wait of one poll, ms. */
export const waitMsMax = 20_000

/** What is told of a run, in order. */
export const RunChange = Schema.Union(
  /** It has moved more than once since what was told before: what was between is not told. */
  Schema.TaggedStruct("gap", {}),
  Schema.TaggedStruct("state", { state: RunState, attempt: Schema.Int }),
  /** JSON text: a percentage, or a value of the task's progress schema. */
  Schema.TaggedStruct("progress", { attempt: Schema.Int, progress: Schema.String }),
  /** `missed`: lines before these that are not kept any more. */
  Schema.TaggedStruct("log", { lines: Schema.Array(LogLine), missed: Schema.Int }),
  /** It is final: the last one. */
  Schema.TaggedStruct("end", { run: Run })
)
export type RunChange = typeof RunChange.Type

const Cursor = Schema.String.pipe(Schema.maxLength(cursorLengthMax))
const changed = <A, I>(change: Schema.Schema<A, I>, changesMax: number) =>
  Schema.Struct({
    /** Each with the cursor to go on from after it; what is told of a queue together is told again together. */
    changes: Schema.Array(Schema.Struct({ change, cursor: Cursor })).pipe(Schema.maxItems(changesMax)),
    cursor: Cursor,
    /** Nothing will follow. */
    isOver: Schema.Boolean
  })

/** Changes of one answer, at most. Usually far fewer: hints of 1,000 changes, and a page of 1,000 ends. */
export const changesMax = 100_000

export const RunChanges = changed(RunChange, 10)
export type RunChanges = typeof RunChanges.Type

/** What is told of the runs of a queue. */
export const QueueChange = Schema.Union(
  /** Changes may have been missed until now, but ends are told: read the rows where the others matter. */
  Schema.TaggedStruct("gap", {}),
  Schema.TaggedStruct("state", { id: RunId, state: RunState }),
  Schema.TaggedStruct("progress", { id: RunId, attempt: Schema.Int, progress: Schema.NullOr(Schema.String) }),
  /**
   * As its row says. May be told twice after a watch was resumed, never not at all. `isUnkept`: by a hint alone, of a run that has
   * no row: it leaves no history.
   */
  Schema.TaggedStruct("end", {
    id: RunId,
    state: RunState,
    isUnkept: Schema.optionalWith(Schema.Literal(true), { exact: true })
  })
)
export type QueueChange = typeof QueueChange.Type

export const QueueChanges = changed(QueueChange, changesMax)
export type QueueChanges = typeof QueueChanges.Type

export const WatchedQueue = Schema.Struct({ namespace: Name, queue: Name })

// --- one run --------------------------------------------------------------------------------------------------------

interface Told {
  readonly state: RunState | undefined
  readonly attempt: number
  readonly progressCount: number
  readonly lineCount: number
}

const nothing: Told = { state: undefined, attempt: 0, progressCount: 0, lineCount: 0 }

const cursorOf = ({ attempt, lineCount, progressCount, state }: Told): string =>
  `r1.${state ?? ""}.${attempt}.${progressCount}.${lineCount}`

const isState = Schema.is(RunState)

/** A cursor that is none begins anew. */
const toldOf = (cursor: string): Told => {
  const [, state, attempt, progressCount, lineCount] =
    /^r1\.([a-z]+)\.(\d{1,10})\.(\d{1,15})\.(\d{1,15})$/.exec(cursor) ?? []
  return isState(state)
    ? { state, attempt: Number(attempt), progressCount: Number(progressCount), lineCount: Number(lineCount) }
    : nothing
}

/** Whether the cursor is that after the end. */
export const isEnd = (cursor: string): boolean => {
  const { state } = toldOf(cursor)
  return state !== undefined && isFinal(state)
}

/** Within one move, as far as can be seen. */
const isNext = (told: Told, run: Run): boolean =>
  told.state === undefined ||
  (canMove(told.state, run.state) && Math.abs(run.attempt - told.attempt) <= 1) ||
  (told.state === run.state && told.attempt === run.attempt)

/** What is new in the rows. `progress` must have been read after `run`: of a final run it is then complete. */
export const changesOf = (cursor: string, run: Run, progress: RunProgress | null): RunChanges => {
  let told = toldOf(cursor)
  if (told.state !== undefined && isFinal(told.state)) return { changes: [], cursor, isOver: true }
  const changes: Array<{ readonly change: RunChange; readonly cursor: string }> = []
  const tell = (change: RunChange, after: Told): void => {
    told = after
    changes.push({ change, cursor: cursorOf(after) })
  }
  const isOver = isFinal(run.state)
  if (!isNext(told, run)) tell({ _tag: "gap" }, told)
  if (!isOver && (told.state !== run.state || told.attempt !== run.attempt)) {
    tell({ _tag: "state", state: run.state, attempt: run.attempt }, { ...told, state: run.state, attempt: run.attempt })
  }
  if (progress !== null && progress.progress !== null && progress.progressCount > told.progressCount) {
    tell(
      { _tag: "progress", attempt: progress.attempt, progress: progress.progress },
      { ...told, progressCount: progress.progressCount }
    )
  }
  if (progress !== null && progress.lineCount > told.lineCount) {
    const lines = progress.lines.slice(-Math.max(1, progress.lineCount - told.lineCount))
    const missed = progress.lineCount - told.lineCount - lines.length
    tell({ _tag: "log", lines, missed: Math.max(0, missed) }, { ...told, lineCount: progress.lineCount })
  }
  if (isOver) tell({ _tag: "end", run }, { ...told, state: run.state, attempt: run.attempt })
  return { changes, cursor: cursorOf(told), isOver }
}

// --- a queue --------------------------------------------------------------------------------------------------------

/** Where a watch of a queue stands: hints up to `hints`, ends up to `since` (ms by the database clock). */
export interface QueuePosition {
  /** `undefined`: it begins. */
  readonly since: number | undefined
  /** There are more ends than were told: they are read before anything else. */
  readonly isBehind: boolean
  readonly hints: string
}

export const queueCursorOf = ({ hints, isBehind, since }: QueuePosition): string =>
  `q1.${isBehind ? "b" : "u"}.${since ?? ""}.${hints}`

/** A cursor that is none begins anew, with a gap. */
export const queuePositionOf = (cursor: string): QueuePosition => {
  const [, behind, since, hints] = /^q1\.([bu])\.(\d{1,15})\.(.{0,64})$/.exec(cursor) ?? []
  return since === undefined
    ? { since: undefined, isBehind: false, hints: "" }
    : { since: Number(since), isBehind: behind === "b", hints: hints ?? "" }
}

export const queueChangeOf = (id: RunId, state: RunState): QueueChange => ({
  _tag: isFinal(state) ? "end" : "state",
  id,
  state
})

// --- streams --------------------------------------------------------------------------------------------------------

export interface WatchOptions {
  /** The cursor of an item of an earlier watch: goes on after it, also from another process. */
  readonly after?: string
}

export interface Watched<A> {
  readonly change: A
  /** For `after`. */
  readonly cursor: string
}

/**
 * What happens to a run, until its end: first how it is now, then each change as it comes, within milliseconds where there are
 * hints or the run ends, within a second otherwise. Log lines are told once each, as long as they are kept.
 *
 * Fails when the cluster cannot be reached for the time budget of the client; the last cursor goes on from there.
 */
export const run = (
  id: RunId,
  options: WatchOptions = {}
): Stream.Stream<Watched<RunChange>, RunNotFound | ClusterUnavailable, Runs> =>
  polls(options.after ?? "", (cursor) => Effect.flatMap(Runs, (runs) => runs.changes(id, cursor, waitMsMax)))

/**
 * What happens to the runs of a queue from now on, or from a cursor on. Begins with `gap`. Every end of a run that leaves a
 * history is told; other changes are told as far as there are hints (`Signals`), and `gap` says when some may be missing: every
 * 0.8 s without any.
 */
export const queue = (
  name: QueueName,
  options: WatchOptions = {}
): Stream.Stream<Watched<QueueChange>, ClusterUnavailable, Runs> =>
  Stream.suspend(() => {
    const told = new ToldEnds()
    const once = (cursor: string) => Effect.flatMap(Runs, (runs) => runs.queueChanges(name, cursor, waitMsMax))
    return polls(options.after ?? "", once).pipe(
      // What a hint alone tells is not remembered: a forged one must not hide the end that the rows tell.
      Stream.filter(({ change }) => change._tag !== "end" || change.isUnkept === true || told.isNew(change.id))
    )
  })

const polls = <A, E, R>(
  after: string,
  poll: (cursor: string) => Effect.Effect<
    {
      readonly changes: ReadonlyArray<Watched<A>>
      readonly cursor: string
      readonly isOver: boolean
    },
    E,
    R
  >
): Stream.Stream<Watched<A>, E, R> =>
  Stream.paginateEffect(
    after,
    (cursor) =>
      Effect.map(poll(cursor), ({ changes, cursor, isOver }) =>
        [changes, isOver ? Option.none<string>() : Option.some(cursor)] as const)
  ).pipe(
    Stream.flatMap(Stream.fromIterable)
  )

/** Ends told of lately, so that one that is read again is told once. Bounded: the older half goes first. */
class ToldEnds {
  private now = new Set<string>()
  private before = new Set<string>()

  isNew(id: string): boolean {
    if (this.now.has(id) || this.before.has(id)) return false
    if (this.now.size >= endsRemembered) {
      this.before = this.now
      this.now = new Set()
    }
    this.now.add(id)
    return true
  }
}

const endsRemembered = 10_000

/** As `RunChange`, by the schemas of a task. */
export type TaskChange<S, E, G> =
  | Exclude<RunChange, { readonly _tag: "progress" | "end" }>
  | { readonly _tag: "progress"; readonly attempt: number; readonly progress: G }
  | { readonly _tag: "end"; readonly state: FinalState; readonly result: Either.Either<S, E> }

interface Watchable<S, E, G> {
  readonly end: (run: Run) => Effect.Effect<S, E>
  readonly progress: Schema.Schema<G, unknown> | undefined
}

/** `run`, with progress and end as the task types them. Progress its schema cannot read (of another release) is left out. */
export const task = <S, E, G>(
  { end, progress }: Watchable<S, E, G>,
  id: RunId,
  options: WatchOptions = {}
): Stream.Stream<Watched<TaskChange<S, E, G>>, RunNotFound | ClusterUnavailable, Runs> => {
  const schema = progress ?? Schema.Number as unknown as Schema.Schema<G, unknown>
  const decode = Schema.decodeUnknown(Schema.parseJson(schema))
  const typed = (change: RunChange): Effect.Effect<Option.Option<TaskChange<S, E, G>>> => {
    switch (change._tag) {
      case "progress":
        return Effect.option(Effect.map(decode(change.progress), (value) => ({ ...change, progress: value })))
      case "end":
        return Effect.map(
          Effect.either(end(change.run)),
          (result) => Option.some({ _tag: "end" as const, state: change.run.state as FinalState, result })
        )
      default:
        return Effect.succeedSome(change)
    }
  }
  return run(id, options).pipe(
    Stream.mapEffect(({ change, cursor }) =>
      Effect.map(typed(change), Option.map((change): Watched<TaskChange<S, E, G>> => ({ change, cursor })))
    ),
    Stream.filterMap((found) => found)
  )
}
