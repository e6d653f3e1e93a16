/** What one watcher has not read yet: bounded, and a `gap` takes the place of what does not fit. */
import { Effect, Stream } from "effect"
import { unreadMax, type Watched } from "./Signals.js"

export class WatchBuffer {
  private unread: Array<Watched> = []
  private resume: ((effect: Effect.Effect<Watched>) => void) | undefined

  offer(item: Watched): void {
    if (this.resume !== undefined) {
      const resume = this.resume
      this.resume = undefined
      return resume(Effect.succeed(item))
    }
    const last = this.unread.at(-1)
    if (this.unread.length >= unreadMax) this.unread = [{ _tag: "gap", cursor: item.cursor }]
    else if (item._tag === "gap" && last?._tag === "gap") this.unread[this.unread.length - 1] = item
    else this.unread.push(item)
  }

  /** One reader at a time. */
  readonly stream: Stream.Stream<Watched> = Stream.repeatEffect(Effect.async<Watched>((resume) => {
    const first = this.unread.shift()
    if (first !== undefined) return resume(Effect.succeed(first))
    this.resume = resume
    return Effect.sync(() => {
      if (this.resume === resume) this.resume = undefined
    })
  }))
}
