/**
 * The line of batches before the journal's connections: bounded by bytes, taken in bulk.
 *
 * Two batches that change runs of one partition are never under way at once: in one statement the second would not see
 * what the first did, on two connections it could overtake it. Batches of new runs only have nothing to overtake.
 */
import { Overloaded, StoreUnavailable } from "@orrery/core/Errors"
import type { CommitResult, JournalBatch } from "@orrery/core/Journal"
import { Exit } from "effect"

export interface LineLimits {
  /** Rows and bytes of what is taken together; a single batch may have more. */
  readonly rowsMax: number
  readonly bytesMax: number
  /** Bytes waiting or under way. */
  readonly pendingBytesMax: number
}

export interface Waiting {
  readonly batch: JournalBatch
  readonly rows: number
  readonly bytes: number
  /** Changes runs that are there already. */
  readonly isChange: boolean
  /** `performance.now()` after which it is given up. */
  readonly deadline: number
  readonly answer: (result: CommitResult) => void
  settled: boolean
}

/** About what a row costs besides its texts. */
const rowBytes = 200
const retryAfterMs = 500

export class JournalLine {
  private waiting: Array<Waiting> = []
  private readonly underWay = new Set<number>()
  private readonly idle: Array<(taken: ReadonlyArray<Waiting>) => void> = []
  private serving = false
  private closed = false
  bytesPending = 0
  batchesPending = 0
  /** Monotonic ms: since when something has been pending without any commit being answered. */
  private unansweredSince = 0

  constructor(private readonly limits: LineLimits, private readonly resolveForMs: number) {}

  add(batch: JournalBatch, answer: Waiting["answer"]): void {
    if (this.closed) {
      const cause = new Error("the journal is closing")
      return queueMicrotask(() => answer(Exit.fail(new StoreUnavailable({ operation: "commit", cause }))))
    }
    const rows = batch.inserts.length + batch.updates.length + batch.finishes.length + (batch.roll?.starts.length ?? 0)
    const bytes = bytesOf(batch, rows)
    const limit = this.limits.pendingBytesMax
    if (this.bytesPending > 0 && this.bytesPending + bytes > limit) {
      const refusal = new Overloaded({ what: "journal bytes", limit, actual: this.bytesPending, retryAfterMs })
      return queueMicrotask(() => answer(Exit.fail(refusal)))
    }
    const now = performance.now()
    if (this.batchesPending === 0) this.unansweredSince = now
    this.bytesPending += bytes
    this.batchesPending += 1
    const isChange = rows > batch.inserts.length
    const deadline = now + this.resolveForMs
    this.waiting.push({ batch, rows, bytes, isChange, deadline, answer, settled: false })
    this.serveSoon()
  }

  /** For how long, ms, commits have been waiting without any being answered; 0: none waits. */
  get unansweredMs(): number {
    return this.batchesPending === 0 ? 0 : performance.now() - this.unansweredSince
  }

  /** The database has answered a commit. */
  answered(): void {
    this.unansweredSince = performance.now()
  }

  /** Gives the next batches, at least one, once there are some. */
  take(receive: (taken: ReadonlyArray<Waiting>) => void): void {
    const taken = this.next()
    if (taken.length > 0) receive(taken)
    else this.idle.push(receive)
  }

  /** No connection takes any more. */
  end(): void {
    this.idle.length = 0
  }

  /** Ends a batch that was taken. Only the first time counts. */
  settle(each: Waiting, exit: CommitResult): void {
    if (each.settled) return
    each.settled = true
    if (each.isChange) this.underWay.delete(each.batch.partitionId)
    this.release(each)
    each.answer(exit)
    // One that had to wait for its partition.
    if (this.waiting.length > 0) this.serveSoon()
  }

  /** Gives up batches that have waited too long. They were not sent; their actors cannot know, and start anew. */
  expire(cause: Error): void {
    const now = performance.now()
    const expired = this.waiting.filter((each) => each.deadline <= now)
    if (expired.length === 0) return
    this.waiting = this.waiting.filter((each) => each.deadline > now)
    for (const each of expired) {
      this.release(each)
      each.answer(Exit.fail(new StoreUnavailable({ operation: "commit", cause })))
    }
  }

  /** Takes nothing new. */
  close(): void {
    this.closed = true
  }

  /** After `close`: gives up what still waits. */
  abandon(cause: Error): void {
    const left = this.waiting
    this.waiting = []
    for (const each of left) {
      this.release(each)
      each.answer(Exit.fail(new StoreUnavailable({ operation: "commit", cause })))
    }
  }

  private release(each: Waiting): void {
    this.bytesPending -= each.bytes
    this.batchesPending -= 1
  }

  /** In the next turn of the event loop, so that what comes in this one goes together. */
  private serveSoon(): void {
    if (this.serving || this.idle.length === 0) return
    this.serving = true
    setImmediate(() => {
      this.serving = false
      while (this.idle.length > 0) {
        const taken = this.next()
        if (taken.length === 0) return
        this.idle.shift()!(taken)
      }
    })
  }

  private next(): ReadonlyArray<Waiting> {
    const taken: Array<Waiting> = []
    const left: Array<Waiting> = []
    let rows = 0
    let bytes = 0
    let full = false
    // The statement tells partitions apart, not epochs: an old owner's batch must not pass as the new one's.
    const epochs = new Map<number, number>()
    for (const each of this.waiting) {
      const { epoch, partitionId } = each.batch
      const fits = taken.length === 0 ||
        (rows + each.rows <= this.limits.rowsMax && bytes + each.bytes <= this.limits.bytesMax)
      // Nobody is passed over because of its size: once one does not fit, the rest waits too.
      if (!fits) full = true
      const isOtherOwner = (epochs.get(partitionId) ?? epoch) !== epoch
      if (full || isOtherOwner || (each.isChange && this.underWay.has(partitionId))) {
        left.push(each)
        continue
      }
      taken.push(each)
      epochs.set(partitionId, epoch)
      if (each.isChange) this.underWay.add(partitionId)
      rows += each.rows
      bytes += each.bytes
    }
    this.waiting = left
    return taken
  }
}

const bytesOf = (batch: JournalBatch, rows: number): number => {
  let bytes = rows * rowBytes
  for (const { run } of batch.inserts) bytes += run.payload.length + run.policy.length
  for (const { edit, failure } of batch.updates) bytes += (failure?.length ?? 0) + (edit?.payload.length ?? 0)
  for (const { failure, result } of batch.finishes) bytes += (result?.length ?? 0) + (failure?.length ?? 0)
  return bytes
}
