/**
 * What one attempt has told and its owner has not confirmed: bounded, however much it tells. Of progress the last value
 * counts; lines beyond what a second allows are counted, and a line says so.
 */
import {
  lineCharsPerSecond,
  lineLengthMax,
  linesPerSecond,
  type NoteReport,
  reportLinesMax
} from "@orrery/core/RunNotes"
import type { AttemptRef } from "@orrery/core/WorkerProtocol"

const windowMs = 1_000

interface Line {
  readonly at: number
  readonly text: string
}

const cutLine = (text: string): string =>
  text.length <= lineLengthMax ? text : `${text.slice(0, lineLengthMax)} … (${text.length} characters)`

export class Notes {
  private progress: string | undefined
  private lines: Array<Line> = []
  private checkpoint: string | undefined
  private saved: Array<() => void> = []
  private window = { since: Number.NEGATIVE_INFINITY, lines: 0, chars: 0 }
  private cut = { lines: 0, chars: 0 }
  /** Lines reported so far, those under way included. */
  private told = 0
  /** Under way, or to be sent again as it is. */
  private sent: { readonly report: NoteReport; readonly saved: ReadonlyArray<() => void> } | undefined
  private isUnderWay = false
  /** Times in a row that a report was not answered. */
  failures = 0

  /** `changed`: there is something to be sent; at once where somebody waits for it. */
  constructor(private readonly changed: (isUrgent: boolean) => void) {}

  setProgress(json: string): void {
    this.progress = json
    this.changed(false)
  }

  /** `at`: wall clock; `now`: monotonic, ms. */
  addLine(line: string, at: number, now: number): void {
    const { window } = this
    if (now - window.since >= windowMs) {
      this.noteCut(at)
      this.window = { since: now, lines: 0, chars: 0 }
    }
    const text = cutLine(line)
    const isTooFast = this.window.lines >= linesPerSecond || this.window.chars + text.length > lineCharsPerSecond
    // Room for the marks: the owner may be away for long.
    if (isTooFast || this.lines.length >= reportLinesMax - 2) {
      this.cut.lines += 1
      this.cut.chars += line.length
    } else {
      this.window.lines += 1
      this.window.chars += text.length
      this.lines.push({ at, text })
    }
    this.changed(false)
  }

  /** `saved` is called once it is durable. The last of several that wait is the one that is kept. */
  saveCheckpoint(json: string, saved: () => void): void {
    this.checkpoint = json
    this.saved.push(saved)
    this.changed(true)
  }

  /** Something is not confirmed. */
  get isPending(): boolean {
    return this.sent !== undefined || this.hasNew
  }

  get isUrgent(): boolean {
    return this.saved.length > 0 || (this.sent !== undefined && this.sent.saved.length > 0)
  }

  private get hasNew(): boolean {
    return this.progress !== undefined || this.lines.length > 0 || this.cut.lines > 0 || this.checkpoint !== undefined
  }

  private noteCut(at: number): void {
    const { chars, lines } = this.cut
    if (lines === 0 || this.lines.length >= reportLinesMax) return
    this.lines.push({
      at,
      text:
        `… ${lines} lines (${chars} characters) were cut: more than ${linesPerSecond} lines or ${lineCharsPerSecond} ` +
        "characters in a second, or the owner was away"
    })
    this.cut = { lines: 0, chars: 0 }
  }

  /** What is to be sent now. Nothing while a report is under way. */
  take(ref: AttemptRef, at: number): NoteReport | undefined {
    if (this.isUnderWay) return undefined
    if (this.sent === undefined) {
      if (!this.hasNew) return undefined
      this.noteCut(at)
      const report = {
        ...ref,
        progress: this.progress,
        firstLine: this.told + 1,
        lines: this.lines,
        checkpoint: this.checkpoint
      }
      this.told += this.lines.length
      this.sent = { report, saved: this.saved }
      this.progress = undefined
      this.lines = []
      this.checkpoint = undefined
      this.saved = []
    }
    this.isUnderWay = true
    return this.sent.report
  }

  /** The owner has it. */
  accepted(): void {
    const saved = this.sent?.saved ?? []
    this.sent = undefined
    this.isUnderWay = false
    this.failures = 0
    for (const each of saved) each()
    if (this.hasNew) this.changed(this.isUrgent)
  }

  /** No answer: it is sent again. */
  failed(): void {
    this.isUnderWay = false
    this.failures += 1
  }

  /** Nobody wants it any more; who waits for a checkpoint waits for ever. */
  drop(): void {
    this.sent = undefined
    this.isUnderWay = false
    this.progress = undefined
    this.lines = []
    this.checkpoint = undefined
    this.cut = { lines: 0, chars: 0 }
    this.saved = []
  }
}
