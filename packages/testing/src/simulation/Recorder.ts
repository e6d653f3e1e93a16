/** Gathers the history of a simulation. */
import type { HistoryEvent } from "../history/HistoryEvent.js"
import type { World } from "./World.js"

type Told<Event> = Event extends HistoryEvent ? Omit<Event, "at"> : never

export class Recorder {
  readonly history: Array<HistoryEvent> = []

  constructor(private readonly world: World) {}

  tell(event: Told<HistoryEvent>): void {
    this.history.push({ at: this.world.now, ...event })
  }
}
