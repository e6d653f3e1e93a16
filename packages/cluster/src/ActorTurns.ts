/**
 * When the actors of a node have their turns: all that have something to do, one after the other, in one round of the event
 * loop. So what they decide travels together: the outcomes of a hundred queues in one report of a worker, the changes of a
 * hundred partitions in one commit. When each had a round of its own, a node with many queues made a report and a commit for
 * every few runs (docs/decisions/0032).
 */

/** A round that lasts longer is broken off, ms: sockets and timers come first, then the rest of it. */
const roundMsMax = 4
/** Turns between two looks at the time. */
const lookEvery = 8

export class ActorTurns {
  private waiting: Array<() => void> = []
  private isSet = false

  /** In the next round, after those that asked before. */
  add(turn: () => void): void {
    this.waiting.push(turn)
    this.set()
  }

  private set(): void {
    if (this.isSet) return
    this.isSet = true
    setImmediate(this.round)
  }

  private readonly round = (): void => {
    const turns = this.waiting
    this.waiting = []
    let at = 0
    try {
      const until = performance.now() + roundMsMax
      while (at < turns.length) {
        turns[at++]!()
        if (at % lookEvery === 0 && performance.now() > until) break
      }
    } finally {
      this.isSet = false
      if (at < turns.length) this.waiting = turns.slice(at).concat(this.waiting)
      if (this.waiting.length > 0) this.set()
    }
  }
}
