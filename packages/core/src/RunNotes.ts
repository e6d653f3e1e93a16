/**
 * What an attempt tells while it runs: progress, log lines, and a checkpoint for the attempt after it. Kept beside the run,
 * for those runs only that tell something.
 *
 * The worker gathers (at most one report per run and second, but for checkpoints and the end of the attempt), the owner of
 * the partition merges and writes under its epoch. A report is guarded by the lease of its attempt like an outcome, and may
 * come twice: lines have numbers, the rest replaces what was.
 */
import { Schema } from "effect"
import { RunId } from "./RunId.js"
import type { AttemptRef } from "./WorkerProtocol.js"

/** Largest progress value, encoded. */
export const progressBytesMax = 4 * 1024
/** Largest checkpoint, encoded. */
export const checkpointBytesMax = 64 * 1024
/** Longest log line, in characters. Longer ones are cut with a mark. */
export const lineLengthMax = 1_000
/** Lines and characters an attempt may log in one second. What is beyond is cut, and a line says how much. */
export const linesPerSecond = 50
export const lineCharsPerSecond = 16 * 1024
/** Lines and characters kept with a run, of all its attempts: the newest. */
export const linesKept = 200
export const lineCharsKept = 32 * 1024

export const LogLine = Schema.Struct({
  /** Ms since 1970 by the clock of the worker. */
  at: Schema.Number,
  attempt: Schema.Int,
  text: Schema.String
})
export type LogLine = typeof LogLine.Type

/** What is known of a run beside its state. A run that has told nothing has none. */
export const RunProgress = Schema.Struct({
  runId: RunId,
  /** Which attempt told last. */
  attempt: Schema.Int,
  updatedAt: Schema.Number,
  /** JSON text: a percentage from 0 to 100, or a value of the task's progress schema. */
  progress: Schema.NullOr(Schema.String),
  /** How often it has been told, as far as owners have heard: it grows. */
  progressCount: Schema.Int,
  /** The newest, in order. */
  lines: Schema.Array(LogLine),
  /** Lines ever kept. More than there are: the oldest are gone. */
  lineCount: Schema.Int
})
export type RunProgress = typeof RunProgress.Type

/** `RunProgress`, with what is needed to know a report that comes twice. */
export interface StoredNotes extends RunProgress {
  readonly lease: number
  /** Lines of that lease's attempt that have been told. */
  readonly leaseLines: number
}

/** Lines of one report. What an attempt logs while its owner cannot be reached is cut. */
export const reportLinesMax = 200

/** What is new since the last report of the attempt. */
export interface NoteReport extends AttemptRef {
  /** JSON text. */
  readonly progress: string | undefined
  /** Number of the first of `lines` within the attempt, from 1. */
  readonly firstLine: number
  readonly lines: ReadonlyArray<{ readonly at: number; readonly text: string }>
  /** JSON text. */
  readonly checkpoint: string | undefined
}

/** The bounds of a report, as a boundary checks them. A mark for what was cut, and a cut line, are a little longer. */
export const NoteReport = Schema.Struct({
  partitionId: Schema.Int.pipe(Schema.nonNegative()),
  runId: RunId,
  attempt: Schema.Int.pipe(Schema.nonNegative()),
  lease: Schema.Int.pipe(Schema.nonNegative()),
  progress: Schema.UndefinedOr(Schema.String.pipe(Schema.maxLength(progressBytesMax))),
  firstLine: Schema.Int.pipe(Schema.positive()),
  lines: Schema.Array(
    Schema.Struct({ at: Schema.Number, text: Schema.String.pipe(Schema.maxLength(lineLengthMax + 100)) })
  ).pipe(Schema.maxItems(reportLinesMax)),
  checkpoint: Schema.UndefinedOr(Schema.String.pipe(Schema.maxLength(checkpointBytesMax)))
})

/** Before a run has told anything. */
export const noNotes = (runId: RunId): StoredNotes => ({
  runId,
  attempt: 0,
  updatedAt: 0,
  progress: null,
  progressCount: 0,
  lines: [],
  lineCount: 0,
  lease: 0,
  leaseLines: 0
})

/** The notes once the report is taken in. The same report twice makes the same of them; one of an older lease changes nothing. */
export const withReport = (notes: StoredNotes, report: NoteReport, now: number): StoredNotes => {
  if (report.lease < notes.lease) return notes
  const told = report.lease === notes.lease ? notes.leaseLines : 0
  const fresh = report.lines.slice(Math.max(0, told + 1 - report.firstLine))
  const isNewProgress = report.progress !== undefined &&
    (report.progress !== notes.progress || report.attempt !== notes.attempt)
  return {
    runId: notes.runId,
    attempt: report.attempt,
    updatedAt: Math.floor(now),
    progress: report.progress ?? notes.progress,
    progressCount: notes.progressCount + (isNewProgress ? 1 : 0),
    lines: newest([...notes.lines, ...fresh.map(({ at, text }) => ({ at, attempt: report.attempt, text }))]),
    lineCount: notes.lineCount + fresh.length,
    lease: report.lease,
    leaseLines: Math.max(told, report.firstLine + report.lines.length - 1)
  }
}

const newest = (lines: ReadonlyArray<LogLine>): ReadonlyArray<LogLine> => {
  let chars = 0
  let from = lines.length
  while (from > 0 && lines.length - from < linesKept) {
    chars += lines[from - 1]!.text.length
    if (chars > lineCharsKept) break
    from -= 1
  }
  return from === 0 ? lines : lines.slice(from)
}

/** As readers see them. */
export const shownNotes = ({ lease: _, leaseLines: __, ...progress }: StoredNotes): RunProgress => progress
