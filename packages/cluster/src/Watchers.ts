import type { RunId } from "@orrery/core/RunId"

/** Who waits for the ends of which runs. */
export class Watchers {
  private readonly byRun = new Map<RunId, Set<() => void>>()

  get isEmpty(): boolean {
    return this.byRun.size === 0
  }

  /** Answers how to stop. */
  add(id: RunId, changed: () => void): () => void {
    let set = this.byRun.get(id)
    if (set === undefined) {
      set = new Set()
      this.byRun.set(id, set)
    }
    set.add(changed)
    return () => {
      set.delete(changed)
      if (set.size === 0 && this.byRun.get(id) === set) this.byRun.delete(id)
    }
  }

  notify(id: RunId): void {
    const set = this.byRun.get(id)
    if (set === undefined) return
    this.byRun.delete(id)
    for (const changed of set) changed()
  }

  notifyAll(): void {
    for (const id of [...this.byRun.keys()]) this.notify(id)
  }
}
