/** Gathers the history of a simulation, and counts what came about in it. */
import type { HistoryEvent } from "../history/HistoryEvent.js"
import * as Coverage from "./Coverage.js"
import type { World } from "./World.js"

type Told<Event> = Event extends HistoryEvent ? Omit<Event, "at"> : never

export class Recorder {
  readonly history: Array<HistoryEvent> = []
  readonly coverage = Coverage.none()
  private readonly begun = new Set<string>()

  constructor(private readonly world: World) {}

  tell(told: Told<HistoryEvent>): void {
    const event: HistoryEvent = { at: this.world.now, ...told }
    this.history.push(event)
    const name = Coverage.nameOf(event, this.isFirst)
    if (name !== undefined) this.count(name)
  }

  count(name: Coverage.CoverageName, times = 1): void {
    this.coverage[name] += times
  }

  private readonly isFirst = (run: string): boolean => this.begun.size < this.begun.add(run).size
}
