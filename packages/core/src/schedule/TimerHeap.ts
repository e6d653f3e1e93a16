/** Ids by time, the earliest first. An id has one time; setting another replaces it. */
interface Timer {
  readonly id: string
  readonly at: number
}

export class TimerHeap {
  private readonly heap: Array<Timer> = []
  /** What counts; entries of the heap that are not in it are left over. */
  private readonly current = new Map<string, Timer>()

  set(id: string, at: number | undefined): void {
    if (at === undefined) {
      this.current.delete(id)
      return
    }
    if (this.current.get(id)?.at === at) return
    const timer = { id, at }
    this.current.set(id, timer)
    this.push(timer)
    // Left-over entries must not pile up: schedules are set anew with each tick.
    if (this.heap.length > 64 && this.heap.length > 2 * this.current.size) this.rebuild()
  }

  /** Time of the earliest. */
  peek(): number | undefined {
    this.dropStale()
    return this.heap[0]?.at
  }

  /** Takes out those of `now` or before, at most `limit`. */
  take(now: number, limit: number): ReadonlyArray<string> {
    const due: Array<string> = []
    while (due.length < limit) {
      this.dropStale()
      const first = this.heap[0]
      if (first === undefined || first.at > now) break
      this.pop()
      this.current.delete(first.id)
      due.push(first.id)
    }
    return due
  }

  private dropStale(): void {
    for (let first = this.heap[0]; first !== undefined && this.current.get(first.id) !== first; first = this.heap[0]) {
      this.pop()
    }
  }

  private rebuild(): void {
    this.heap.length = 0
    for (const timer of this.current.values()) this.push(timer)
  }

  private push(timer: Timer): void {
    const { heap } = this
    let at = heap.push(timer) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (heap[parent]!.at <= timer.at) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = timer
  }

  private pop(): void {
    const { heap } = this
    const last = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child += 1
      if (heap[child]!.at >= last.at) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
  }
}
