/**
 * The journal on PostgreSQL: group commit with a fence.
 *
 * Batches of actors wait in one line. Each journal connection, when free, takes as many as fit (never two that
 * change runs of one partition) and commits them in one statement; while it is under way the next gather. There is no timer: at low load
 * a batch is committed at once, at high load batches grow.
 *
 *   answer lost   the commit is in doubt. The lost session is ended first (`JournalConnection` says why), then the same
 *                 statement is sent again: it may be repeated. An insert that meets a row with its own number has met
 *                 itself. The epoch may have moved meanwhile: then `Fenced`, though the first copy may have counted
 *   refused       the statement or its values are wrong. Halved again and again, until the batch that is to blame
 *                 fails alone
 *   database down batches wait, bounded in bytes (`Overloaded`) and time (`StoreUnavailable`)
 *   closing       takes nothing new and commits what it has, for at most 10 s
 *
 * Interrupting a caller does not withdraw its batch.
 */
import { Fenced, StoreUnavailable } from "@orrery/core/Errors"
import { fromSubmit, Journal, type JournalBatch } from "@orrery/core/Journal"
import type { RunId } from "@orrery/core/RunId"
import { Context, Data, Duration, Effect, Exit, FiberSet, Layer, Schedule } from "effect"
import { type CommitRow, commitStatement, type Statement, whoseRows } from "./internal/commitStatement.js"
import { JournalConnection } from "./internal/JournalConnection.js"
import { JournalLine, type Waiting } from "./internal/JournalLine.js"
import { type Verdict, verdictOf, withoutValues } from "./internal/pgErrors.js"
import { PgPools } from "./PgPools.js"

export interface JournalOptions {
  /** Rows of one commit; a single batch may have more. Default 2,000. */
  readonly rowsMax?: number
  /** Bytes of one commit; a single batch may have more. Default 8 MiB. */
  readonly bytesMax?: number
  /** Bytes waiting or under way on this node; beyond it `Overloaded`. Default 64 MiB. */
  readonly pendingBytesMax?: number
  /** How long a batch may wait for the database, or its commit be in doubt, before `StoreUnavailable`. Default 30 s. */
  readonly resolveFor?: Duration.DurationInput
}

/** What the journal has done since it was made, and holds now. Read at any time. */
export interface JournalCounters {
  /** Statements committed. */
  readonly commits: number
  readonly rows: number
  readonly fenced: number
  /** Statements sent again. */
  readonly retries: number
  /** Batches the database would not take. More than 0 is a bug. */
  readonly refused: number
  readonly bytesPending: number
  readonly batchesPending: number
  /** For how long commits have been waiting without any being answered, ms; 0: none waits. */
  readonly unansweredMs: number
}

export class PgJournalCounters
  extends Context.Tag("@orrery/store-pg/PgJournalCounters")<PgJournalCounters, JournalCounters>()
{}

const defaults = { rowsMax: 2_000, bytesMax: 8 * 1024 * 1024, pendingBytesMax: 64 * 1024 * 1024 }
const resolveForDefault = Duration.seconds(30)

/** Between tries: 50 ms doubling to 1 s. The deadline is the batch's own. */
const resend = Schedule.exponential("50 millis").pipe(Schedule.union(Schedule.spaced("1 second")))
const closeWithin = Duration.seconds(10)

interface State {
  readonly line: JournalLine
  readonly counts: { commits: number; rows: number; fenced: number; retries: number; refused: number }
}

export const make = Effect.fn("PgJournal.make")(function*(options: JournalOptions = {}) {
  const { journal: pool, journalConnections } = yield* PgPools
  const line = new JournalLine({ ...defaults, ...options }, Duration.toMillis(options.resolveFor ?? resolveForDefault))
  const state: State = { line, counts: { commits: 0, rows: 0, fenced: 0, retries: 0, refused: 0 } }
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  for (let each = 0; each < journalConnections; each++) {
    yield* Effect.acquireRelease(
      Effect.sync(() => new Lane(state, new JournalConnection(pool), fork)),
      (lane) => Effect.sync(() => lane.close())
    )
  }
  yield* Effect.addFinalizer(() => drain(line))
  const counters: JournalCounters = {
    get commits() {
      return state.counts.commits
    },
    get rows() {
      return state.counts.rows
    },
    get fenced() {
      return state.counts.fenced
    },
    get retries() {
      return state.counts.retries
    },
    get refused() {
      return state.counts.refused
    },
    get bytesPending() {
      return line.bytesPending
    },
    get batchesPending() {
      return line.batchesPending
    },
    get unansweredMs() {
      return line.unansweredMs
    }
  }
  const journal = fromSubmit((batch, done) => line.add(batch, done))
  return Context.make(Journal, journal).pipe(Context.add(PgJournalCounters, counters))
})

export const layer = (options?: JournalOptions): Layer.Layer<Journal | PgJournalCounters, never, PgPools> =>
  Layer.scopedContext(make(options))

/**
 * One connection at work. Plain code as long as a statement is answered as nearly all are; what is not goes to a fiber,
 * which starts with that answer.
 */
class Lane {
  private underWay: ReadonlyArray<Waiting> = []
  private isOpen = true

  constructor(
    private readonly state: State,
    private readonly connection: JournalConnection,
    private readonly fork: (effect: Effect.Effect<void>) => void
  ) {
    this.connection.warm()
    this.takeNext()
  }

  close(): void {
    this.isOpen = false
    this.state.line.end()
    failAll(this.state, this.underWay, new Error("the journal was closed"))
    this.connection.close()
  }

  private takeNext(): void {
    this.underWay = []
    if (this.isOpen) this.state.line.take((taken) => this.commit(taken))
  }

  private commit(taken: ReadonlyArray<Waiting>): void {
    this.underWay = taken
    let statement: Statement
    try {
      statement = statementOf(taken)
    } catch {
      return this.resolve(taken)
    }
    this.connection.query<CommitRow>(statement).then(
      (rows) => {
        const open = new Set(rows[0]!.open)
        if (!isAllDone(taken, open, rows[0]!)) return this.resolve(taken, Effect.succeed(rows))
        answerAll(this.state, taken, { open, duplicates: noneOf, gone: undefined, now: rows[0]!.now })
        this.takeNext()
      },
      (error: unknown) => this.resolve(taken, Effect.fail(notCommitted(error)))
    )
  }

  private resolve(taken: ReadonlyArray<Waiting>, sent?: Sent): void {
    const next = Effect.sync(() => this.takeNext())
    this.fork(Effect.zipRight(commitAll(this.state, this.connection, taken, sent), next))
  }
}

const drain = (line: JournalLine) =>
  Effect.sync(() => line.close()).pipe(
    Effect.zipRight(
      Effect.iterate(undefined, { while: () => line.batchesPending > 0, body: () => Effect.sleep("5 millis") })
    ),
    Effect.interruptible,
    Effect.timeoutOption(closeWithin),
    Effect.zipRight(Effect.sync(() => line.abandon(new Error("the journal was closed"))))
  )

class NotCommitted extends Data.TaggedError("NotCommitted")<{
  readonly verdict: Verdict
  readonly cause: Error
}> {}

/** `exists` cannot come from a statement that lets rows be there already; if it does, that batch is to blame. */
const isFinalVerdict = (verdict: Verdict): boolean => verdict === "refused" || verdict === "exists"

/** Settles every batch it is given, whatever happens. */
const commitAll = (
  state: State,
  connection: JournalConnection,
  taken: ReadonlyArray<Waiting>,
  first?: Sent
): Effect.Effect<void> => {
  let left = taken
  let sent = first
  const failLeft = (cause: Error) => {
    failAll(state, left, cause)
    left = []
  }
  const giveUpLate = ({ cause, verdict }: NotCommitted) =>
    Effect.sync(() => {
      if (isFinalVerdict(verdict)) return
      state.counts.retries += 1
      const now = performance.now()
      const late = left.filter((each) => each.deadline <= now)
      left = left.filter((each) => each.deadline > now)
      for (const each of late) state.line.settle(each, Exit.fail(new StoreUnavailable({ operation: "commit", cause })))
      state.line.expire(cause)
    })
  return Effect.suspend(() => {
    const before = sent
    sent = undefined
    return commitOnce(connection, left, before)
  }).pipe(
    Effect.tapError(giveUpLate),
    Effect.retry({ schedule: resend, while: ({ verdict }) => !isFinalVerdict(verdict) && left.length > 0 }),
    Effect.matchEffect({
      onSuccess: (answer) => Effect.sync(() => answerAll(state, left, answer)),
      onFailure: ({ cause, verdict }) => {
        if (isFinalVerdict(verdict) && left.length > 1) {
          const half = Math.ceil(left.length / 2)
          return Effect.zipRight(
            commitAll(state, connection, left.slice(0, half)),
            commitAll(state, connection, left.slice(half))
          )
        }
        return Effect.suspend(() => {
          const refused = left.length
          state.counts.refused += refused
          failLeft(cause)
          return refused === 0
            ? Effect.void
            : Effect.logError(`a batch was refused: ${cause.message}`).pipe(
              Effect.annotateLogs({ module: "PgJournal" })
            )
        })
      }
    }),
    // A bug, or the journal is closed: nobody may be left waiting.
    Effect.onError(() => Effect.sync(() => failLeft(new Error("the journal was closed"))))
  )
}

interface Answer {
  readonly open: ReadonlySet<number>
  readonly duplicates: (each: Waiting) => ReadonlySet<RunId>
  /** `undefined`: every update has met its run. */
  readonly gone: ((each: Waiting) => ReadonlySet<RunId>) | undefined
  readonly now: number
}

type Sent = Effect.Effect<ReadonlyArray<CommitRow>, NotCommitted>

const notCommitted = (error: unknown) => new NotCommitted({ verdict: verdictOf(error), cause: withoutValues(error) })

const failAll = ({ line }: State, batches: ReadonlyArray<Waiting>, cause: Error): void => {
  for (const each of batches) line.settle(each, Exit.fail(new StoreUnavailable({ operation: "commit", cause })))
}

const statementOf = (taken: ReadonlyArray<Waiting>, mayExist = false): Statement =>
  commitStatement(taken.map((each) => each.batch), mayExist)

/** Every new run was made, and every update has met its run. */
const isAllDone = (taken: ReadonlyArray<Waiting>, open: ReadonlySet<number>, { changed, made }: CommitRow): boolean => {
  let inserts = 0
  let updates = 0
  for (const { batch } of taken) {
    if (!open.has(batch.partitionId)) continue
    inserts += batch.inserts.length
    updates += batch.updates.length
  }
  return made === inserts && changed === updates
}

/**
 * New runs are first taken for new; one that is there already has the whole sent again, row by row. `before`: the answer
 * to the first of these, when it has been sent.
 */
const commitOnce = (
  connection: JournalConnection,
  taken: ReadonlyArray<Waiting>,
  before?: Sent
): Effect.Effect<Answer, NotCommitted> =>
  Effect.gen(function*() {
    const first = yield* Effect.either(before ?? sendCommit(connection, taken, false))
    if (first._tag === "Left" && first.left.verdict !== "exists") return yield* first.left
    const [row] = first._tag === "Right" ? first.right : yield* sendCommit(connection, taken, true)
    const open = new Set(row!.open)
    if (isAllDone(taken, open, row!)) return { open, duplicates: noneOf, gone: undefined, now: row!.now }
    const ids = taken.flatMap(({ batch }) =>
      open.has(batch.partitionId)
        ? [...batch.inserts.map(({ run }) => run.id), ...batch.updates.map(({ id }) => id)]
        : []
    )
    const rows = yield* send<OwnRow>(connection, whoseRows(ids))
    return { open, duplicates: duplicatesBut(rows), gone: goneOf(rows), now: row!.now }
  })

const sendCommit = (connection: JournalConnection, taken: ReadonlyArray<Waiting>, mayExist: boolean): Sent =>
  Effect.flatMap(
    Effect.try({
      try: () => statementOf(taken, mayExist),
      catch: (error) => new NotCommitted({ verdict: "refused", cause: withoutValues(error) })
    }),
    (statement) => send<CommitRow>(connection, statement)
  )

const send = <Row extends object>(connection: JournalConnection, statement: Statement) =>
  Effect.tryPromise({ try: () => connection.query<Row>(statement), catch: notCommitted })

interface OwnRow {
  readonly id: RunId
  readonly partition_id: number
  readonly seq: number
}

const noDuplicates: ReadonlySet<RunId> = new Set()
const noneOf = (): ReadonlySet<RunId> => noDuplicates

/** An insert whose row is there with its own number was made, now or by a copy of this statement before. */
const duplicatesBut = (rows: ReadonlyArray<OwnRow>) => {
  const found = new Map(rows.map((row) => [row.id, row]))
  const isOwn = ({ partitionId }: JournalBatch, id: RunId, seq: number) => {
    const row = found.get(id)
    return row !== undefined && row.partition_id === partitionId && row.seq === seq
  }
  return ({ batch }: Waiting): ReadonlySet<RunId> =>
    new Set(batch.inserts.filter(({ run }) => !isOwn(batch, run.id, run.seq)).map(({ run }) => run.id))
}

const goneOf = (rows: ReadonlyArray<OwnRow>) => {
  const homes = new Map(rows.map((row) => [row.id, row.partition_id]))
  return ({ batch }: Waiting): ReadonlySet<RunId> =>
    new Set(batch.updates.flatMap(({ id }) => homes.get(id) === batch.partitionId ? [] : [id]))
}

const answerAll = (
  { counts, line }: State,
  taken: ReadonlyArray<Waiting>,
  { duplicates, gone, now, open }: Answer
): void => {
  counts.commits += 1
  line.answered()
  for (const each of taken) {
    const { epoch, partitionId } = each.batch
    if (open.has(partitionId)) {
      counts.rows += each.rows
      const vanished = gone === undefined ? {} : { gone: gone(each) }
      line.settle(each, Exit.succeed({ duplicates: duplicates(each), now, ...vanished }))
    } else {
      counts.fenced += 1
      line.settle(each, Exit.fail(new Fenced({ partitionId, epoch })))
    }
  }
}
