/**
 * A bounded view of the head of a line that is kept whole elsewhere (in PostgreSQL).
 *
 * Invariant: every member of the line that sorts at or before the *edge* is in memory. Members beyond it are only
 * in the store, and are read in pages as the head is consumed. So the first member in memory is the first of the
 * whole line, however long it is.
 *
 * The rule that keeps it true while a page is being read: a member is offered only after the commit that put it
 * in the stored line. One that is offered during a read and sorts beyond the edge may or may not be in the page
 * (the page has its own snapshot), so it is held aside until the page is there. Members that left the line during
 * the read may still be in the page: the owner of the window filters them (`QueueMachine.departed`).
 */

/** A place in a window. `key`, then `seq`, gives the order. */
export interface Seat<A> {
  readonly key: number
  readonly seq: number
  readonly bytes: number
  readonly item: A
  taken: boolean
}

export interface WindowLimits {
  /** Aim; up to twice as many are held between two evictions. */
  readonly runsMax: number
  readonly bytesMax: number
}

export interface LoadRequest {
  readonly afterKey: number
  readonly afterSeq: number
  readonly limit: number
}

const before = (a: { readonly key: number; readonly seq: number }, b: { readonly key: number; readonly seq: number }) =>
  a.key < b.key || (a.key === b.key && a.seq < b.seq)

export class Window<A> {
  private heap: Array<Seat<A>> = []
  private aside: Array<Seat<A>> = []
  private asideOverflowed = false
  private edgeKey: number
  private edgeSeq: number
  private bytes = 0
  /** Members in memory. */
  size = 0
  loading = false

  /** `complete`: the stored line is known to be empty. */
  constructor(private readonly limits: WindowLimits, complete: boolean) {
    this.edgeKey = complete ? Infinity : -Infinity
    this.edgeSeq = this.edgeKey
  }

  get complete(): boolean {
    return this.edgeKey === Infinity
  }

  /** A seat when the member is now held (in order, or aside until the page is there); `undefined` when the store has it. */
  offer(item: A, key: number, seq: number, bytes: number): Seat<A> | undefined {
    const seat: Seat<A> = { key, seq, bytes, item, taken: true }
    if (this.isInside(seat)) {
      this.push(seat)
      return seat
    }
    if (!this.loading) return undefined
    if (this.aside.length >= this.limits.runsMax) {
      this.asideOverflowed = true
      return undefined
    }
    this.aside.push(seat)
    return seat
  }

  /** Whether `offer` would take it. An arrival that it would not take need not be offered. */
  accepts(key: number, seq: number): boolean {
    return this.loading || this.isInside({ key, seq })
  }

  /** The first member. */
  peek(): Seat<A> | undefined {
    const heap = this.heap
    while (heap.length > 0 && !heap[0]!.taken) this.shift()
    return heap[0]
  }

  /** Takes a member out, wherever in the line it is. */
  remove(seat: Seat<A>): void {
    if (!seat.taken) return
    seat.taken = false
    if (!this.isInside(seat)) return
    this.size -= 1
    this.bytes -= seat.bytes
    // Empty seats are shed when they come to the head; keep them from piling up further back.
    if (this.heap.length > 64 && this.heap.length > 4 * this.size) this.rebuild(this.heap.filter((each) => each.taken))
  }

  needsLoad(): boolean {
    return !this.complete && !this.loading && this.size <= this.limits.runsMax / 2 &&
      this.bytes <= this.limits.bytesMax / 2
  }

  beginLoad(): LoadRequest {
    this.loading = true
    return {
      afterKey: this.edgeKey,
      afterSeq: this.edgeSeq,
      limit: Math.max(1, this.limits.runsMax - this.size)
    }
  }

  /**
   * Takes in a page. `last` is its last row, the filtered ones included; answers the members held aside that turn
   * out to lie beyond the new edge: the store has them.
   */
  finishLoad(
    page: ReadonlyArray<Seat<A>>,
    last: { readonly key: number; readonly seq: number } | undefined,
    complete: boolean
  ): ReadonlyArray<Seat<A>> {
    this.loading = false
    const aside = this.aside
    this.aside = []
    if (this.asideOverflowed) {
      // Some arrivals were let go, and may sort inside the page: read it again from the old edge.
      this.asideOverflowed = false
      const out = [...page, ...aside.filter((seat) => seat.taken)]
      for (const seat of out) seat.taken = false
      return out
    }
    if (complete) {
      this.edgeKey = Infinity
      this.edgeSeq = Infinity
    } else if (last !== undefined) {
      this.edgeKey = last.key
      this.edgeSeq = last.seq
    }
    for (const seat of page) this.push(seat)
    const beyond: Array<Seat<A>> = []
    for (const seat of aside) {
      if (!seat.taken) continue
      if (this.isInside(seat)) this.push(seat)
      else beyond.push(seat)
    }
    return beyond
  }

  /** The page could not be read: what was held aside is in the store. */
  failLoad(): ReadonlyArray<Seat<A>> {
    this.loading = false
    this.asideOverflowed = false
    const aside = this.aside.filter((seat) => seat.taken)
    this.aside = []
    return aside
  }

  /** When far over its bound: gives up the end of the line and answers it. The store must have every member. */
  evict(): ReadonlyArray<Seat<A>> {
    if (this.loading || (this.size <= 2 * this.limits.runsMax && this.bytes <= 2 * this.limits.bytesMax)) return []
    const sorted = this.heap.filter((seat) => seat.taken).sort((a, b) => (before(a, b) ? -1 : 1))
    let keep = 0
    let bytes = 0
    while (keep < sorted.length && keep < this.limits.runsMax && (keep === 0 || bytes < this.limits.bytesMax)) {
      bytes += sorted[keep]!.bytes
      keep += 1
    }
    const gone = sorted.splice(keep)
    const last = sorted[sorted.length - 1]!
    this.edgeKey = last.key
    this.edgeSeq = last.seq
    this.heap = sorted // sorted is a heap
    this.size = sorted.length
    this.bytes = bytes
    for (const seat of gone) seat.taken = false
    return gone
  }

  private isInside(seat: { readonly key: number; readonly seq: number }): boolean {
    return seat.key < this.edgeKey || (seat.key === this.edgeKey && seat.seq <= this.edgeSeq)
  }

  private push(seat: Seat<A>): void {
    this.size += 1
    this.bytes += seat.bytes
    const heap = this.heap
    let at = heap.length
    heap.push(seat)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!before(seat, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = seat
  }

  private shift(): void {
    const heap = this.heap
    const last = heap.pop()!
    if (heap.length > 0) this.sink(last, 0)
  }

  private sink(seat: Seat<A>, from: number): void {
    const heap = this.heap
    const length = heap.length
    let at = from
    for (;;) {
      let child = 2 * at + 1
      if (child >= length) break
      if (child + 1 < length && before(heap[child + 1]!, heap[child]!)) child += 1
      if (!before(heap[child]!, seat)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = seat
  }

  private rebuild(seats: Array<Seat<A>>): void {
    this.heap = seats
    for (let at = (seats.length >> 1) - 1; at >= 0; at--) this.sink(seats[at]!, at)
  }
}

export const seatOf = <A>(item: A, key: number, seq: number, bytes: number): Seat<A> => ({
  key,
  seq,
  bytes,
  item,
  taken: true
})
